"""The kernels of this machine's CPU, built before the first test."""

import pytest

from warmstart.cpu.kernels import cpu_kernels


@pytest.fixture(scope="session", autouse=True)
def _built_kernels(built_kernels):
    pass


@pytest.fixture(scope="session")
def kernels(built_kernels):
    if (found := cpu_kernels()) is None:
        pytest.skip("this machine has no AVX-512 or no g++: torch's operations serve")
    return found
