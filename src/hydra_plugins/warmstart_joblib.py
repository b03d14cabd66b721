"""What runs the jobs of ``hydra/launcher=joblib``: warmstart/sweeps/processes.py, with the config of joblib's launcher.

Hydra imports this file at every start, so that it imports nothing heavy.
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
    """Runs each job in a process of its own, ``n_jobs`` at a time (-1: as many as there are cores).

    Raises:
        UserError: another option of joblib's is set, which has no meaning here.
    """

    def __init__(self, n_jobs: int, **options: Any) -> None:
        from hydra_plugins.hydra_joblib_launcher.config import JobLibLauncherConf

        default = {field.name: field.default for field in fields(JobLibLauncherConf)}
        if unused := [f"hydra.launcher.{name}" for name, value in options.items() if value != default.get(name)]:
            raise UserError(
                f"{listed(unused)}: each job has a process of its own, so joblib's pool and its options are not used. "
                "Leave them out; hydra.launcher.n_jobs is the number of jobs at a time."
            )
        if n_jobs == 0:
            raise UserError("hydra.launcher.n_jobs=0 was requested: set the number of jobs at a time, or -1.")
        self.n_jobs = n_jobs

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.hydra_context, self.task_function = config, hydra_context, task_function

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs, the first of which has the number ``initial_job_idx``, to their ends."""
        from warmstart.sweeps.processes import launch

        return launch(self, job_overrides, initial_job_idx)
