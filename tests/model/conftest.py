"""The kernels of this machine's CPU, built before the first test of the model."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def _built_kernels(built_kernels):
    pass
