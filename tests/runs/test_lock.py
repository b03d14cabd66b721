"""Two commands, one folder: the second ends before it writes anything, and a process that is gone holds nothing."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

RUN = Path(__file__).parents[2] / "run.py"
TINY = ("debug=tiny", "name=x", "encoder=bert", "decoder=bert", "trainer.max_steps=2")


def start(folder: Path, *words: str) -> subprocess.Popen:
    """The process of a command, once it has the folder, stopped (SIGSTOP)."""
    process = subprocess.Popen([sys.executable, RUN, *words], cwd=folder, stdout=subprocess.DEVNULL)
    while process.poll() is None and not (folder / "runs" / "x" / ".hydra" / "overrides.yaml").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGSTOP)
    return process


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_second_fit_ends_with_one_message_and_leaves_the_folder_as_it_is(run_py, tmp_path):
    first = start(tmp_path, *TINY)
    try:
        before = files(tmp_path)
        for words in ((*TINY, "seed=2"), ("task=evaluate", "ckpt=elsewhere", "name=x")):
            second = run_py(*words, cwd=tmp_path)
            assert second.returncode == 2
            said = second.stderr.strip().splitlines()
            assert len(said) == 1, second.stderr
            assert "runs/x" in said[0]
            assert f"process {first.pid} on {socket.gethostname()}" in said[0]
            assert "another name=" in said[0]
            assert files(tmp_path) == before
    finally:
        first.send_signal(signal.SIGCONT)
    assert first.wait(120) == 0
    again = run_py(*TINY, "seed=2", "ckpt=new", cwd=tmp_path)
    assert again.returncode == 0, again.stderr


def test_a_killed_fit_holds_nobody_up(run_py, tmp_path):
    first = start(tmp_path, *TINY)
    first.kill()
    first.wait()
    outcome = run_py(*TINY, cwd=tmp_path)
    assert outcome.returncode == 0, outcome.stderr


@pytest.mark.slow
def test_of_two_ranks_the_one_that_starts_the_run_holds_its_folder(run_py, tmp_path):
    words = (*TINY, "trainer.devices=2", "trainer.strategy=ddp")
    first = start(tmp_path, *words)
    try:
        second = run_py(*words, cwd=tmp_path)
        assert second.returncode == 2
        assert f"process {first.pid}" in second.stderr
    finally:
        first.send_signal(signal.SIGCONT)
    assert first.wait(120) == 0
