"""Build the CPU kernels before the first test of the model."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def _built_kernels(built_kernels):
    pass
