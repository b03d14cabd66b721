"""Run the jobs of a sweep as Ray tasks, on this machine or on an existing cluster.

    python run.py -m hydra/launcher=ray hydra.launcher.cpus=2 encoder=bert,roberta seed=1,2
    python run.py -m hydra/launcher=ray hydra.launcher.address=auto encoder=bert,roberta

A Ray started here only listens on the loopback interface, sends no usage statistics and ends with the sweep. Machines
of a cluster need warmstart installed and the working directory under the same path. A signal to the sweep is passed on
to its jobs.
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

from warmstart.errors import Interrupted, UserError
from warmstart.sweeps.sweep import JobFailed

_log = logging.getLogger(__name__)
SAVE_SECONDS = 60.0  # for jobs to save a checkpoint after a signal
_CONNECT_SECONDS = 10.0
_STORE_BYTES = 100_000_000  # enough: jobs only pass overrides and a score through the object store
_LOCAL_RAY_ENV = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # This makes Ray keep to the loopback interface; on Linux it would listen on all interfaces.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}


def launch(launcher: Any, job_overrides: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
    """Run all jobs; one that fails or dies does not stop the others.

    Args:
        launcher: a ``hydra_plugins.warmstart_ray.RayLauncher``.
        job_overrides: command-line overrides of each job.
        first: number of the first job.

    Returns:
        One result for each job, in order.

    Raises:
        Interrupted: a signal came; it was passed on to the running jobs.
        UserError: Ray does not answer, or this machine is too small for a job.
    """
    configs = job_configs(launcher, job_overrides, first)
    with _ray(launcher.address) as ray:
        _log.info("Ray runs %d jobs, sweep output dir: %s", len(configs), launcher.config.hydra.sweep.dir)
        # max_calls=1 gives each job its own process, which frees all memory at its end. There are no retries: what
        # killed a job, such as lack of memory, would kill it again. The same command resumes it.
        task = ray.remote(max_calls=1, max_retries=0)(run_one)
        shared = (os.getcwd(), launcher.hydra_context, launcher.task_function, Singleton.get_state())
        jobs = []
        for number, (config, words) in enumerate(zip(configs, job_overrides, strict=True), first):
            _log.info("\t#%d : %s", number, " ".join(filter_overrides(words)))
            resources = {"num_cpus": launcher.cpus, "num_gpus": _gpus(ray, launcher.gpus, config)}
            _check_resources(ray, launcher.address, resources)
            jobs.append(task.options(**resources).remote(config, *shared))
        return _outcomes(ray, jobs, job_overrides)


def job_configs(launcher: Any, job_overrides: Sequence[Sequence[str]], first: int) -> list[DictConfig]:
    """Compose the whole config of each job, and create the sweep's folder.

    Args:
        launcher: a Hydra launcher after its ``setup``.
        job_overrides: command-line overrides of each job.
        first: number of the first job.
    """
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
    """Wait for all jobs. On a signal, stop them gracefully; a second signal stops waiting.

    Raises:
        Interrupted: a signal came.
    """
    outcomes: dict[Any, JobReturn] = {}
    waiting, stopped_at = list(jobs), None
    with recorded_signals() as received:
        while waiting and len(received) < 2 and (stopped_at is None or time.monotonic() < stopped_at + SAVE_SECONDS):
            done, waiting = ray.wait(waiting, timeout=1.0)
            for job in done:
                outcomes[job] = _outcome(ray, job, job_overrides[jobs.index(job)])
            if received and stopped_at is None:
                stopped_at = time.monotonic()
                for job in waiting:
                    ray.cancel(job)
    if received:
        raise Interrupted(received[0], None)
    return [outcomes[job] for job in jobs]


@contextmanager
def recorded_signals() -> Iterator[list[signal.Signals]]:
    """Collect SIGTERM and SIGINT in a list instead of acting on them.

    Ray's own handler would end the process, and an exception raised by a handler is lost inside Ray's calls.
    """
    received: list[signal.Signals] = []
    before = {
        number: signal.signal(number, lambda number, frame: received.append(signal.Signals(number)))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_one(config: DictConfig, folder: str, hydra_context: Any, task: Any, singletons: Any) -> JobReturn:
    """Set up Hydra in the job's process as it is in the sweep's, then run the job.

    Args:
        config: whole config of the job.
        folder: working directory of the sweep.
        hydra_context: Hydra's context in the sweep's process.
        task: Hydra's task function.
        singletons: state of Hydra's singletons in the sweep's process.

    Returns:
        Hydra's result; a job that a signal stopped is a failed one.

    Raises:
        UserError: this machine does not have the folder.
    """
    try:
        os.chdir(folder)
    except OSError as error:
        raise UserError(
            f"{os.uname().nodename} does not have the folder {folder}. Make it available under this path on every "
            "machine of the cluster."
        ) from error
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
    except Interrupted as interruption:
        return failed_job(list(config.hydra.overrides.task), str(interruption))


def _outcome(ray: Any, job: Any, words: Sequence[str]) -> JobReturn:
    try:
        outcome: JobReturn = ray.get(job)
    except ray.exceptions.RayTaskError as error:  # raised by the job, and not stored in its JobReturn
        raise error.cause from None
    except ray.exceptions.RayError as error:  # the process or its machine died
        reason = str(error).strip().splitlines()[0]
        _log.error("A job died (%s): %s", " ".join(filter_overrides(words)), reason)
        return failed_job(words, reason)
    return outcome


def failed_job(words: Sequence[str], reason: str) -> JobReturn:
    """Return Hydra's result for a job that died or was stopped by a signal."""
    return JobReturn(overrides=words, status=JobStatus.FAILED, _return_value=JobFailed(reason))


def _gpus(ray: Any, configured: float | None, config: DictConfig) -> float:
    """Return the GPUs of a job; it does not see any that Ray has not reserved for it."""
    if configured is not None:
        return configured
    devices: int = config.trainer.devices if config.trainer.accelerator != "cpu" else 0
    return devices if ray.cluster_resources().get("GPU", 0) else 0


def _check_resources(ray: Any, address: str | None, resources: dict[str, float]) -> None:
    """Raise a UserError if this machine is too small for a job: Ray would wait forever for another machine."""
    available = ray.cluster_resources()
    for key, name in (("cpus", "CPU"), ("gpus", "GPU")):
        if address is None and resources[f"num_{key}"] > available.get(name, 0):
            raise UserError(
                f"Each job needs {resources[f'num_{key}']:g} {name}s, but this machine has {available.get(name, 0):g}. "
                f"Set hydra.launcher.{key}."
            )


def _check_connection(address: str) -> None:
    """Raise an OSError if nothing listens at HOST:PORT: Ray itself would try for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()


@contextmanager
def _ray(address: str | None) -> Iterator[Any]:
    """Connect to the Ray at ``address``, or start one that ends with this block.

    Raises:
        UserError: there is no Ray at the address.
    """
    if address is None:
        for name, value in _LOCAL_RAY_ENV.items():
            os.environ.setdefault(name, value)
    import ray

    local = {"address": "local", "include_dashboard": False, "object_store_memory": _STORE_BYTES}
    try:
        if address is not None and address != "auto":
            _check_connection(address)
        ray.init(**(local if address is None else {"address": address}), logging_level=logging.WARNING)
    except (OSError, ValueError) as error:
        raise UserError(
            f"hydra.launcher.address={address} was requested, but no Ray answers there. Start one (ray start), or "
            "leave the address out."
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()
