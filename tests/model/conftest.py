"""The kernels of this machine's CPU, built before the first test of the model."""

import pytest

from warmstart.model.cpu_kernels import build_cpu_kernels, cpu_kernels


@pytest.fixture(scope="session", autouse=True)
def _built_kernels():
    build_cpu_kernels()


@pytest.fixture(scope="session")
def kernels(_built_kernels):
    if (found := cpu_kernels()) is None:
        pytest.skip("this machine has no AVX-512 or no g++: torch's operations serve")
    return found
