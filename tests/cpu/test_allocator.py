"""Freed memory is kept for the next step."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
from pathlib import Path
import torch
from warmstart.cpu.allocator import keep_freed_memory

def held():
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1])
    before = resident()
    torch.ones(16 * 2**20)  # 64 MiB, 16,384 pages, freed at once
    return resident() - before

held()
returned = held()
assert keep_freed_memory()
print(returned, held())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_freed_memory_stays_in_the_process():
    output = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True).stdout
    returned, kept = map(int, output.split())
    assert returned < 1_000
    assert kept > 15_000
