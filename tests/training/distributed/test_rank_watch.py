"""A rank that dies ends the job with a message, whether or not this process notices by itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from lightning.pytorch.strategies.launchers import subprocess_script

from warmstart.errors import RankDied
from warmstart.training.distributed.rank_watch import watched_ranks


def fails_beside(other: subprocess.Popen, error: BaseException) -> None:
    with watched_ranks():
        subprocess_script._launch_process_observer([other])
        raise error


def rank(code: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", code])


def test_a_process_that_waits_for_a_dead_rank_ends_with_a_message():
    script = [sys.executable, Path(__file__).with_name("stuck_rank.py")]
    outcome = subprocess.run(script, capture_output=True, text=True, check=False, timeout=120)
    assert outcome.returncode == 1
    assert "warmstart: Rank 2 of this job was ended by SIGKILL" in outcome.stderr
    with pytest.raises(ProcessLookupError):  # the other one does not wait either
        os.kill(int(outcome.stdout), 0)


def test_an_error_caused_by_a_dead_rank_is_recognised():
    dies = rank("import os; os.kill(os.getpid(), 9)")
    with pytest.raises(RankDied, match="Rank 1 of this job was ended by SIGKILL"):
        fails_beside(dies, RuntimeError("Connection closed by peer"))


@pytest.mark.parametrize("code", ["", "import sys; sys.exit(143)"])
def test_ranks_that_finish_or_shut_down_gracefully_are_not_failures(code):
    with watched_ranks() as watch:
        subprocess_script._launch_process_observer([rank(code)])
        assert watch.killed(seconds=60) is None
        assert watch.death() is None
    before = subprocess_script._launch_process_observer
    assert before.__module__.startswith("lightning")


def test_no_rank_outlives_a_failure():
    waits = rank("import time; time.sleep(600)")
    with pytest.raises(KeyboardInterrupt):
        fails_beside(waits, KeyboardInterrupt())
    assert waits.poll() == -9
