"""``run.py`` as a person starts it: a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run_py():
    """``run_py("task=check", ..., cwd=folder)``: the finished process with its output."""

    def run(*words: str, cwd: Path) -> subprocess.CompletedProcess:
        command = [sys.executable, ROOT / "run.py", *words]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=300)

    return run
