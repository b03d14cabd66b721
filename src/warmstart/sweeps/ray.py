"""Jobs of a sweep as Ray tasks, on a Ray of this machine or on a cluster that runs already.

    python run.py -m hydra/launcher=ray hydra.launcher.cpus=2 encoder=bert,roberta seed=1,2
    python run.py -m hydra/launcher=ray hydra.launcher.address=auto encoder=bert,roberta

A Ray that is started here listens on this machine alone, reports to nobody, and ends with the sweep. A cluster's
machines need warmstart installed and this folder under the same path. Asked to end, the sweep asks its jobs first.
"""

import logging
import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, run_job, setup_globals
from omegaconf import DictConfig, open_dict

from warmstart.errors import Left, UserError
from warmstart.sweeps.sweep import JobFailed

_log = logging.getLogger(__name__)
TO_SAVE = 60.0  # for jobs that are asked to end to save where they are
_ANSWER = 10.0  # seconds for a cluster to be reached
_STORE = 100_000_000  # bytes; jobs pass nothing but words and a score through it
_OF_OUR_OWN = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # What makes Ray keep to the loopback interface; on Linux it listens on all of them otherwise.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}


def launch(launcher: Any, job_overrides: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
    """Run jobs for a :class:`hydra_plugins.warmstart_ray.RayLauncher`; a job that fails or dies stops no other."""
    configs = job_configs(launcher, job_overrides, first)
    with _ray(launcher.address) as ray:
        _log.info("Ray runs %d jobs, sweep output dir: %s", len(configs), launcher.config.hydra.sweep.dir)
        # A process for each job: its memory ends with it. One that died is not started anew: what killed it (memory
        # that ran out, say) would kill it again, and the same command goes on with it.
        task = ray.remote(max_calls=1, max_retries=0)(run_one)
        shared = (os.getcwd(), launcher.hydra_context, launcher.task_function, Singleton.get_state())
        jobs = []
        for number, (config, words) in enumerate(zip(configs, job_overrides, strict=True), first):
            _log.info("\t#%d : %s", number, " ".join(filter_overrides(words)))
            room = {"num_cpus": launcher.cpus, "num_gpus": _gpus(ray, launcher.gpus, config)}
            _check_room(ray, launcher.address, room)
            jobs.append(task.options(**room).remote(config, *shared))
        return _outcomes(ray, jobs, job_overrides)


def job_configs(launcher: Any, job_overrides: Sequence[Sequence[str]], first: int) -> list[DictConfig]:
    """The whole config of each job, the first of which has the number ``first``; makes the sweep's folder."""
    setup_globals()
    configure_log(launcher.config.hydra.hydra_logging, launcher.config.hydra.verbose)
    Path(str(launcher.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
    load = launcher.hydra_context.config_loader.load_sweep_config
    configs = [load(launcher.config, list(words)) for words in job_overrides]
    for number, config in enumerate(configs, first):
        with open_dict(config):
            config.hydra.job.id = f"{config.hydra.job.name}_{number}"
            config.hydra.job.num = number
    return configs


def _outcomes(ray: Any, jobs: list[Any], job_overrides: Sequence[Sequence[str]]) -> list[JobReturn]:
    """What became of each. A signal asks all to end, as Ctrl-C does: a fit saves where it is; a second waits no more.

    Raises:
        Left: a signal came.
    """
    found: dict[Any, JobReturn] = {}
    waiting, left_at = list(jobs), None
    with noted_signals() as came:
        while waiting and len(came) < 2 and (left_at is None or time.monotonic() < left_at + TO_SAVE):
            done, waiting = ray.wait(waiting, timeout=1.0)
            for job in done:
                found[job] = _outcome(ray, job, job_overrides[jobs.index(job)])
            if came and left_at is None:
                left_at = time.monotonic()
                for job in waiting:
                    ray.cancel(job)
    if came:
        raise Left(came[0], None)
    return [found[job] for job in jobs]


@contextmanager
def noted_signals() -> Iterator[list[signal.Signals]]:
    """The signals that came. Ray would end the process, and what a handler raises is lost inside Ray's calls."""
    came: list[signal.Signals] = []
    before = {
        number: signal.signal(number, lambda number, frame: came.append(signal.Signals(number)))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_one(config: DictConfig, folder: str, hydra_context: Any, task: Any, singletons: Any) -> JobReturn:
    """In a process of its own: Hydra as it is where the sweep was started, then the job."""
    try:
        os.chdir(folder)
    except OSError as error:
        raise UserError(f"{folder} is not on {os.uname().nodename}: machines of a cluster need it, too.") from error
    setup_globals()
    Singleton.set_state(singletons)
    HydraConfig.instance().set_config(config)
    try:
        return run_job(
            hydra_context=hydra_context,
            config=config,
            task_function=task,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
    except Left as left:
        return failed_job(list(config.hydra.overrides.task), str(left))


def _outcome(ray: Any, job: Any, words: Sequence[str]) -> JobReturn:
    try:
        return ray.get(job)
    except ray.exceptions.RayTaskError as error:  # an error of a kind that Hydra does not keep in its answer
        raise error.cause from None
    except ray.exceptions.RayError as error:  # the process died, or its machine
        reason = str(error).strip().splitlines()[0]
        _log.error("A job died (%s): %s", " ".join(filter_overrides(words)), reason)
        return failed_job(words, reason)


def failed_job(words: Sequence[str], reason: str) -> JobReturn:
    """What Hydra is given of a job that died, or was asked to end."""
    return JobReturn(overrides=words, status=JobStatus.FAILED, _return_value=JobFailed(reason))


def _gpus(ray: Any, asked: float | None, config: DictConfig) -> float:
    """GPUs of a job: Ray hides every one that it has not promised."""
    if asked is not None:
        return asked
    wanted = config.trainer.devices if config.trainer.accelerator != "cpu" else 0
    return wanted if ray.cluster_resources().get("GPU", 0) else 0


def _check_room(ray: Any, address: str | None, room: dict[str, float]) -> None:
    """Ray would wait for ever for what a single machine does not have; a cluster may grow."""
    has = ray.cluster_resources()
    for key, name in (("cpus", "CPU"), ("gpus", "GPU")):
        if address is None and room[f"num_{key}"] > has.get(name, 0):
            raise UserError(
                f"A job was to have {room[f'num_{key}']:g} {name}s, but this machine has {has.get(name, 0):g}. Set "
                f"hydra.launcher.{key}."
            )


def _reach(address: str) -> None:
    """Raise where nothing listens at HOST:PORT: Ray itself tries for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    socket.create_connection((host, int(port)), timeout=_ANSWER).close()


@contextmanager
def _ray(address: str | None) -> Iterator[Any]:
    """Ray: one of our own if no address is given, which ends on the way out.

    Raises:
        UserError: nothing answers there.
    """
    if address is None:
        for name, value in _OF_OUR_OWN.items():
            os.environ.setdefault(name, value)
    import ray

    ours = {"address": "local", "include_dashboard": False, "object_store_memory": _STORE}
    try:
        if address is not None and address != "auto":
            _reach(address)
        ray.init(**(ours if address is None else {"address": address}), logging_level=logging.WARNING)
    except (OSError, ValueError) as error:
        raise UserError(f"hydra.launcher.address={address} was asked for, but no Ray answers there.") from error
    try:
        yield ray
    finally:
        ray.shutdown()
