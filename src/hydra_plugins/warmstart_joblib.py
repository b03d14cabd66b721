"""The Hydra launcher ``hydra/launcher=joblib``; see warmstart/sweeps/processes.py.

It replaces the launcher of hydra-joblib-launcher and takes the same options.

Hydra imports this file at every start, so it must not import anything heavy.
"""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from warmstart.errors import UserError, listed


class ProcessLauncher(Launcher):
    """Runs each job in its own process.

    Args:
        n_jobs: jobs that run at a time; -1 is the number of cores.
        options: other options of joblib's launcher, which must have their defaults.
    """

    def __init__(self, n_jobs: int, **options: Any) -> None:
        """Check the options.

        Raises:
            UserError: an option has no meaning here, or ``n_jobs`` is 0.
        """
        from hydra_plugins.hydra_joblib_launcher.config import JobLibLauncherConf

        default = {field.name: field.default for field in fields(JobLibLauncherConf)}
        if unused := [f"hydra.launcher.{name}" for name, value in options.items() if value != default.get(name)]:
            raise UserError(
                f"{listed(unused)}: these options of joblib's pool are not supported, because each job runs in its own "
                "process. Remove them; hydra.launcher.n_jobs sets the number of jobs at a time."
            )
        if n_jobs == 0:
            raise UserError("hydra.launcher.n_jobs=0 was requested: set the number of jobs at a time, or -1.")
        self.n_jobs = n_jobs

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
        """
        from warmstart.sweeps.processes import launch

        return launch(self, job_overrides, initial_job_idx)
