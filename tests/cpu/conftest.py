"""Build the CPU kernels before the first test."""

import pytest

from warmstart.cpu.kernels import cpu_kernels


@pytest.fixture(scope="session", autouse=True)
def _built_kernels(built_kernels):
    pass


@pytest.fixture(scope="session")
def kernels(built_kernels):
    if (found := cpu_kernels()) is None:
        pytest.skip("the kernels need AVX-512 and g++")
    return found
