"""Run the jobs of a sweep in parallel on this machine, each in its own process (``hydra/launcher=joblib``).

    python run.py -m hydra/launcher=joblib hydra.launcher.n_jobs=2 encoder=bert,roberta seed=1,2

This replaces joblib's pool, in which a worker that dies ends the sweep, and workers outlive a killed parent. Here a
process that dies only fails its job, and a job whose parent dies saves a checkpoint and exits.
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

from warmstart.errors import Interrupted
from warmstart.sweeps.ray import SAVE_SECONDS, failed_job, job_configs, recorded_signals, run_one

_log = logging.getLogger(__name__)
_POLL = 1.0  # seconds
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def launch(launcher: Any, job_overrides: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
    """Run all jobs; one that fails or dies does not stop the others.

    Args:
        launcher: a ``hydra_plugins.warmstart_joblib.ProcessLauncher``.
        job_overrides: command-line overrides of each job.
        first: number of the first job.

    Returns:
        One result for each job, in order.

    Raises:
        Interrupted: a signal came; it was passed on to the running jobs.
    """
    configs = job_configs(launcher, job_overrides, first)
    at_once = joblib.effective_n_jobs(launcher.n_jobs)
    _log.info("%d jobs, %d at a time, sweep output dir: %s", len(configs), at_once, launcher.config.hydra.sweep.dir)
    shared = (os.getcwd(), launcher.hydra_context, launcher.task_function, Singleton.get_state())
    waiting = list(enumerate(zip(configs, job_overrides, strict=True)))
    running: dict[int, tuple[Any, Connection]] = {}
    outcomes: dict[int, JobReturn] = {}
    stopped_at = None
    with recorded_signals() as received, _share_cores(at_once):
        try:
            while waiting or running:
                while waiting and len(running) < at_once and not received:
                    i, (config, words) = waiting.pop(0)
                    _log.info("\t#%d : %s", first + i, " ".join(filter_overrides(words)))
                    running[i] = _start(config, *shared)
                wait_for([pipe for _, pipe in running.values()], timeout=_POLL)
                for i, (process, pipe) in list(running.items()):
                    if pipe.poll() or not process.is_alive():
                        outcomes[i] = _outcome(process, pipe, job_overrides[i])
                        del running[i]
                if received and stopped_at is None:
                    waiting, stopped_at = [], time.monotonic()
                    for process, _ in running.values():
                        process.terminate()
                if len(received) > 1 or (stopped_at is not None and time.monotonic() > stopped_at + SAVE_SECONDS):
                    break
        finally:
            for process, _ in running.values():
                process.kill()
                process.join()
    if received:
        raise Interrupted(received[0], None)
    return [outcomes[i] for i in range(len(configs))]


def _start(*arguments: Any) -> tuple[Any, Connection]:
    """Start the process of a job, and return it with the pipe for its outcome.

    It is spawned, not forked, because threads of this process may hold locks.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(theirs, _portable(arguments)))
    process.start()
    theirs.close()
    return process, ours


def _work(pipe: Connection, arguments: Sequence[Any]) -> None:
    """Run the job; this is the main function of its process."""
    os.setpgrp()  # Ctrl-C then only reaches the parent, which passes the signal on
    threading.Thread(target=_end_with_parent, daemon=True, name="parent-watch").start()
    outcome: Any
    try:
        outcome = run_one(*arguments)
    except Exception as error:  # noqa: BLE001 - the parent raises any error again
        outcome = error
    with suppress(OSError):  # raised if the parent is gone
        pipe.send(_portable(outcome))


def _end_with_parent() -> None:
    """Wait until the parent is gone, then stop this process gracefully: a fit saves a checkpoint."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(SAVE_SECONDS)
    os._exit(128 + signal.SIGTERM)


def _outcome(process: Any, pipe: Connection, words: Sequence[str]) -> JobReturn:
    try:
        outcome: JobReturn | Exception = pipe.recv()
    except EOFError:
        process.join()
        status = process.exitcode
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        how += " (the system may have run out of memory)" if status == -signal.SIGKILL else ""
        reason = f"Its process {how}. The same command resumes it."
        _log.error("A job died (%s): %s", " ".join(filter_overrides(words)), reason)
        return failed_job(words, reason)
    process.join()
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _portable(value: Any) -> Any:
    """Wrap functions and classes in ``value`` that another process could not import."""
    return joblib.wrap_non_picklable_objects(value, keep_wrapper=False)


@contextmanager
def _share_cores(jobs: int) -> Iterator[None]:
    """Limit the threads of processes started in this block to their share of the cores, unless already limited."""
    ours = [name for name in _THREADS if name not in os.environ]
    os.environ.update(dict.fromkeys(ours, str(max(joblib.cpu_count() // jobs, 1))))
    try:
        yield
    finally:
        for name in ours:
            del os.environ[name]
