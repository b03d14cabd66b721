"""Locks between processes, on file systems with flock and (simulated) without."""

import errno
import fcntl
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest

from warmstart.data.build_once import build_once
from warmstart.errors import UserError
from warmstart.evaluation.resumable import KeptSummaries
from warmstart.locks import Holder, Lock, locked, this_process
from warmstart.runs import lock as run_lock
from warmstart.runs.run_dir import RunDir
from warmstart.sweeps.search import _study

NO_FLOCK = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
WITHOUT = """
import fcntl, os
def flock(descriptor, operation):
    raise OSError({number}, os.strerror({number}))
if {number}:
    fcntl.flock = flock
"""
HOLD = """
import sys, time
from pathlib import Path
from warmstart.locks import Lock
assert Lock(Path(sys.argv[1])).acquire(wait=False)
print("held", flush=True)
time.sleep(600)
"""
COUNT = """
import sys
from pathlib import Path
from warmstart.locks import locked
folder = Path(sys.argv[1])
for _ in range(20):
    with locked(folder / "x.lock"):
        number = int((folder / "count").read_text())
        (folder / "count").write_text(str(number + 1))
"""


@pytest.fixture(params=[0, *NO_FLOCK], ids=lambda number: errno.errorcode.get(number, "flock"))
def number(request, monkeypatch):
    """Return the error number that flock raises; 0 if it works."""
    if request.param:
        no_flock(monkeypatch, request.param)
    return request.param


def no_flock(monkeypatch, number=errno.ENOLCK):
    def flock(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)


def process(code: str, argument: Path, number: int) -> subprocess.Popen:
    words = [sys.executable, "-c", WITHOUT.format(number=number) + code, str(argument)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def holding(path: Path, number: int) -> subprocess.Popen:
    holder = process(HOLD, path, number)
    assert holder.stdout.readline() == "held\n"
    return holder


def of_another_host(path: Path) -> None:
    left = vars(this_process()) | {"host": "elsewhere", "pid": 12}
    path.write_text(json.dumps(left))


def test_a_running_process_keeps_its_lock_and_is_named(number, tmp_path):
    path = tmp_path / "x.lock"
    first = holding(path, number)
    try:
        before = path.read_bytes()
        lock = Lock(path)
        assert not lock.acquire(wait=False)
        assert not lock.is_held
        assert str(lock.holder()) == f"process {first.pid} on {socket.gethostname()}"
        with pytest.raises(UserError, match=f"process {first.pid} on"), run_lock.held(run_dir_with(path)):
            pass
        assert path.read_bytes() == before
    finally:
        first.kill()
        first.wait()


def run_dir_with(path: Path) -> Path:
    """Return a run's folder whose lock file is ``path``."""
    run_dir = path.parent / "run"
    run_dir.mkdir()
    RunDir(run_dir).lock.hardlink_to(path)
    return run_dir


def test_the_lock_of_a_killed_process_blocks_nobody(number, tmp_path):
    path = tmp_path / "x.lock"
    killed = holding(path, number)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert path.exists()
    lock = Lock(path)
    assert lock.acquire(wait=False)
    assert lock.holder().pid == os.getpid()
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_that_is_still_a_zombie_blocks_nobody(number, tmp_path):
    killed = holding(tmp_path / "x.lock", number)
    killed.kill()
    os.waitid(os.P_PID, killed.pid, os.WEXITED | os.WNOWAIT)
    assert Lock(tmp_path / "x.lock").acquire(wait=False)
    killed.wait()


def test_a_later_process_with_the_same_id_is_not_the_holder(number, tmp_path):
    path = tmp_path / "x.lock"
    path.write_text(json.dumps(vars(this_process()) | {"started": "1 of boot earlier"}))
    assert Lock(path).acquire(wait=False)


def test_an_unreleased_lock_of_this_process_is_held(number, tmp_path):
    first, second = Lock(tmp_path / "x.lock"), Lock(tmp_path / "x.lock")
    assert first.acquire(wait=False)
    assert not second.acquire(wait=False)
    second.release()
    assert not second.acquire(wait=False)
    first.release()
    assert second.acquire(wait=False)
    first.release()
    assert not first.acquire(wait=False)


def test_only_one_process_holds_a_lock_at_a_time(number, tmp_path):
    (tmp_path / "count").write_text("0")
    processes = [process(COUNT, tmp_path, number) for _ in range(3)]
    assert [each.wait(120) for each in processes] == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "60"
    assert [path.name for path in tmp_path.iterdir()] == ["count"]


def test_one_of_several_threads_replaces_a_dead_holder(monkeypatch, tmp_path):
    no_flock(monkeypatch)
    path = tmp_path / "x.lock"
    for round_ in range(20):
        path.write_text(json.dumps(vars(this_process()) | {"started": f"{round_} of boot earlier"}))
        locks = [Lock(path) for _ in range(4)]
        outcomes: list[bool] = []
        threads = [
            threading.Thread(target=lambda lock=lock, to=outcomes: to.append(lock.acquire(wait=False)))
            for lock in locks
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert Counter(outcomes) == {True: 1, False: 3}
        for lock in locks:
            lock.release()


def test_without_flock_the_lock_of_another_host_is_refused_and_named(monkeypatch, tmp_path):
    no_flock(monkeypatch)
    (tmp_path / "run").mkdir()
    path = RunDir(tmp_path / "run").lock
    of_another_host(path)
    before = path.read_bytes()
    for wait in (False, True):
        with pytest.raises(UserError) as refused, run_lock.held(tmp_path / "run", wait=wait):
            pass
        assert str(path) in str(refused.value)
        assert "process 12 on elsewhere" in str(refused.value)
        assert "delete the file" in str(refused.value)
    assert path.read_bytes() == before


def test_the_lock_of_a_process_without_flock_blocks_one_with_it(tmp_path):
    path = tmp_path / "x.lock"
    first = holding(path, errno.ENOLCK)
    assert not Lock(path).acquire(wait=False)
    first.kill()
    first.wait()
    assert Lock(path).acquire(wait=False)


def test_a_file_left_by_another_host_with_flock_blocks_nobody(tmp_path):
    path = tmp_path / "x.lock"
    path.write_text(json.dumps(vars(this_process(by_flock=True)) | {"host": "elsewhere"}))
    assert Lock(path).acquire(wait=False)


def test_without_flock_an_unreadable_lock_file_is_refused(monkeypatch, tmp_path):
    no_flock(monkeypatch)
    monkeypatch.setattr("warmstart.locks._WRITE_SECONDS", 0.2)
    (tmp_path / "x.lock").write_bytes(b"")
    with pytest.raises(UserError, match=r"x\.lock is the lock of a process that it does not name.*delete the file"):
        Lock(tmp_path / "x.lock").acquire(wait=True)


def test_a_process_of_another_container_is_not_identified_by_its_id():
    here = vars(this_process())
    assert Holder(**here).is_alive() is True
    assert Holder(**here | {"namespace": "pid:[1]"}).is_alive() is None


def test_a_cache_is_built_once(number, tmp_path):
    built = []

    def build(folder):
        built.append(folder)
        (folder / "x").write_text("x")

    assert build_once(tmp_path / "cache", build) == build_once(tmp_path / "cache", build) == tmp_path / "cache"
    assert len(built) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_kept_summaries_are_read_again(number, tmp_path):
    kept = KeptSummaries(tmp_path / "x.jsonl")
    kept.add([0], ["a"])
    assert KeptSummaries(tmp_path / "x.jsonl").done == {}
    kept.close(complete=False)
    again = KeptSummaries(tmp_path / "x.jsonl")
    assert again.done == {0: "a"}
    again.close(complete=True)
    assert list(tmp_path.iterdir()) == []


def test_a_lock_of_another_host_on_summaries_does_not_end_the_evaluation(monkeypatch, tmp_path, caplog):
    no_flock(monkeypatch)
    of_another_host(tmp_path / "x.jsonl.lock")
    with caplog.at_level(logging.WARNING):
        kept = KeptSummaries(tmp_path / "x.jsonl")
    assert "process 12 on elsewhere" in caplog.text
    kept.add([0], ["a"])
    kept.close(complete=True)
    assert [path.name for path in tmp_path.iterdir()] == ["x.jsonl.lock"]


@pytest.mark.parametrize("has_flock", [True, False])
def test_a_study_is_kept_in_a_folder_of_any_name(has_flock, tmp_path):
    config = SimpleNamespace(trainer=SimpleNamespace(monitor="validation/loss", monitor_mode="min"))
    sweeper = SimpleNamespace(storage=None, config=config)
    folder = tmp_path / "a search?#%20"
    folder.mkdir()
    study = _study(sweeper, folder, {}, has_flock=has_flock)
    study.add_trial(optuna.trial.create_trial(value=1.0))
    assert [path.name for path in folder.iterdir()] == ["search.db"]
    assert _study(sweeper, folder, {}, has_flock=has_flock).best_value == 1.0


def test_waiting_is_logged(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    first = holding(tmp_path / "x.lock", 0)
    threading.Timer(0.5, first.kill).start()
    with locked(tmp_path / "x.lock"):
        pass
    first.wait()
    assert f"Waiting for process {first.pid} on" in caplog.text
