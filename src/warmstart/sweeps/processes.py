"""Jobs of a sweep side by side on this machine, each in a process of its own: what ``hydra/launcher=joblib`` runs.

    python run.py -m hydra/launcher=joblib hydra.launcher.n_jobs=2 encoder=bert,roberta seed=1,2

In joblib's own pool a worker that dies ends the sweep, and workers outlive a driver that is killed. Here a lost
process fails its job only, and a job whose driver is gone saves where it is and ends.
"""

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from typing import Any

import joblib
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, filter_overrides

from warmstart.errors import Left
from warmstart.sweeps.ray import TO_SAVE, failed_job, job_configs, noted_signals, run_one

_log = logging.getLogger(__name__)
_POLL = 1.0  # seconds
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def launch(launcher: Any, job_overrides: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
    """Run jobs for a :class:`hydra_plugins.warmstart_joblib.ProcessLauncher`; a job that fails or dies stops no other.

    Raises:
        Left: a signal came; the jobs were asked to end, too.
    """
    configs = job_configs(launcher, job_overrides, first)
    at_once = joblib.effective_n_jobs(launcher.n_jobs)
    _log.info("%d jobs, %d at a time, sweep output dir: %s", len(configs), at_once, launcher.config.hydra.sweep.dir)
    shared = (os.getcwd(), launcher.hydra_context, launcher.task_function, Singleton.get_state())
    waiting = list(enumerate(zip(configs, job_overrides, strict=True)))
    running: dict[int, tuple[Any, Connection]] = {}
    found: dict[int, JobReturn] = {}
    left_at = None
    with noted_signals() as came, _threads_of(at_once):
        try:
            while waiting or running:
                while waiting and len(running) < at_once and not came:
                    place, (config, words) = waiting.pop(0)
                    _log.info("\t#%d : %s", first + place, " ".join(filter_overrides(words)))
                    running[place] = _start(config, *shared)
                wait_for([pipe for _, pipe in running.values()], timeout=_POLL)
                for place, (process, pipe) in list(running.items()):
                    if pipe.poll() or not process.is_alive():
                        found[place] = _outcome(process, pipe, job_overrides[place])
                        del running[place]
                if came and left_at is None:
                    waiting, left_at = [], time.monotonic()
                    for process, _ in running.values():
                        process.terminate()
                if len(came) > 1 or (left_at is not None and time.monotonic() > left_at + TO_SAVE):
                    break
        finally:
            for process, _ in running.values():
                process.kill()
                process.join()
    if came:
        raise Left(came[0], None)
    return [found[place] for place in range(len(configs))]


def _start(*arguments: Any) -> tuple[Any, Connection]:
    """A process for a job, and where its outcome arrives; not a fork of this process, whose threads may hold locks."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(theirs, _portable(arguments)))
    process.start()
    theirs.close()
    return process, ours


def _work(pipe: Connection, arguments: Sequence[Any]) -> None:
    """In the process of a job."""
    os.setpgrp()  # Ctrl-C reaches the driver, which asks the jobs to end
    threading.Thread(target=_end_with_driver, daemon=True, name="driver-watch").start()
    outcome: Any
    try:
        outcome = run_one(*arguments)
    except Exception as error:  # of a kind that Hydra does not keep in its answer
        outcome = error
    with suppress(OSError):  # the driver is gone
        pipe.send(_portable(outcome))


def _end_with_driver() -> None:
    """Have this process asked to end when its driver is gone: a fit saves where it is."""
    driver = multiprocessing.parent_process()
    assert driver is not None
    driver.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(TO_SAVE)
    os._exit(128 + signal.SIGTERM)


def _outcome(process: Any, pipe: Connection, words: Sequence[str]) -> JobReturn:
    try:
        outcome = pipe.recv()
    except EOFError:
        process.join()
        status = process.exitcode
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        how += " (as the system does where memory runs out)" if status == -signal.SIGKILL else ""
        reason = f"Its process {how}. The same command resumes it."
        _log.error("A job died (%s): %s", " ".join(filter_overrides(words)), reason)
        return failed_job(words, reason)
    process.join()
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _portable(value: Any) -> Any:
    """``value`` with functions and classes that another process cannot import."""
    return joblib.wrap_non_picklable_objects(value, keep_wrapper=False)


@contextmanager
def _threads_of(jobs: int) -> Iterator[None]:
    """In this block a new process computes with its share of the cores, unless the environment has a number already."""
    ours = [name for name in _THREADS if name not in os.environ]
    os.environ.update(dict.fromkeys(ours, str(max(joblib.cpu_count() // jobs, 1))))
    try:
        yield
    finally:
        for name in ours:
            del os.environ[name]
