"""Hydra's launcher ``hydra/launcher=ray``: where Hydra looks for plugins. What it does is in warmstart/sweeps/ray.py.

Hydra imports this file at every start, so that it imports nothing heavy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from warmstart.errors import UserError


@dataclass
class RayConf:
    """What a researcher chooses about jobs on Ray (``hydra.launcher.*``)."""

    _target_: str = "hydra_plugins.warmstart_ray.RayLauncher"
    address: str | None = None
    """``auto`` or HOST:PORT of a cluster that runs already; null starts a Ray on this machine for the sweep alone."""
    cpus: float = 1
    """CPUs of a job: as many jobs run beside each other as there is room for."""
    gpus: float | None = None
    """GPUs of a job, or a share of one such as 0.5; null is ``trainer.devices`` where Ray has GPUs."""


ConfigStore.instance().store(group="hydra/launcher", name="ray", node=RayConf, provider="warmstart")


class RayLauncher(Launcher):
    """Runs each job as a Ray task in a process of its own."""

    def __init__(self, address: str | None, cpus: float, gpus: float | None) -> None:
        self.address, self.cpus, self.gpus = address, cpus, gpus

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.hydra_context, self.task_function = config, hydra_context, task_function

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs, the first of which has the number ``initial_job_idx``, to their ends.

        Raises:
            UserError: Ray is not installed, or has no room for a job.
        """
        if find_spec("ray") is None:
            raise UserError("hydra/launcher=ray needs Ray. Install warmstart[ray].")
        from warmstart.sweeps.ray import launch

        return launch(self, job_overrides, initial_job_idx)
