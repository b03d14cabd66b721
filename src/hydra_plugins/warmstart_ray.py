"""The Hydra launcher ``hydra/launcher=ray``; see warmstart/sweeps/ray.py.

Hydra imports this file at every start, so it must not import anything heavy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from warmstart.errors import UserError, install_extra


@dataclass
class RayConf:
    """Options of the launcher (``hydra.launcher.*``)."""

    _target_: str = "hydra_plugins.warmstart_ray.RayLauncher"
    address: str | None = None
    """``auto`` or HOST:PORT of a running cluster; null starts a Ray on this machine that ends with the sweep."""
    cpus: float = 1
    """CPUs of a job; jobs run in parallel as long as CPUs and GPUs suffice."""
    gpus: float | None = None
    """GPUs of a job, or a fraction of one such as 0.5; null is ``trainer.devices`` if Ray has GPUs, else none."""


ConfigStore.instance().store(group="hydra/launcher", name="ray", node=RayConf, provider="warmstart")


class RayLauncher(Launcher):
    """Runs each job as a Ray task in its own process; ``RayConf`` explains the arguments."""

    def __init__(self, address: str | None, cpus: float, gpus: float | None) -> None:
        """Keep the options."""
        self.address, self.cpus, self.gpus = address, cpus, gpus

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra passes for the launch."""
        self.config, self.hydra_context, self.task_function = config, hydra_context, task_function

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run all jobs to their end.

        Args:
            job_overrides: command-line overrides of each job.
            initial_job_idx: number of the first job.

        Returns:
            One result for each job, in order.

        Raises:
            UserError: Ray is not installed, does not answer, or this machine is too small for a job.
        """
        if find_spec("ray") is None:
            raise UserError(f"hydra/launcher=ray needs Ray, which is not installed. {install_extra('ray')}.")
        from warmstart.sweeps.ray import launch

        return launch(self, job_overrides, initial_job_idx)
