"""Memory that a step freed serves the next one."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import torch
from warmstart.training.allocator import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(16 * 2**20)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

returned = faults()
assert keep_freed_memory()
faults()
print(returned, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_freed_memory_is_not_faulted_in_again():
    said = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True).stdout
    returned, kept = map(int, said.split())
    assert kept * 10 < returned
