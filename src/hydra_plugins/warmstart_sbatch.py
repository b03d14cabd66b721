"""The Hydra launcher ``hydra/launcher=sbatch``, used by ``-m task=sbatch``; see warmstart/sweeps/sbatch.py.

Hydra imports this file at every start, so it must not import anything heavy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from warmstart.errors import UserError


@dataclass
class SbatchConf:
    """The launcher has no options: users edit the printed script instead."""

    _target_: str = "hydra_plugins.warmstart_sbatch.SbatchLauncher"


ConfigStore.instance().store(group="hydra/launcher", name="sbatch", node=SbatchConf, provider="warmstart")


class SbatchLauncher(Launcher):
    """Prints one batch script for all jobs instead of running them.

    Args:
        queue: settings of ``hydra/launcher=submitit_slurm``; if given, submitit's own script is printed.
    """

    def __init__(self, **queue: Any) -> None:
        """Keep the settings."""
        self.queue = queue

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep the sweep's config.

        Raises:
            UserError: the sweep is a search, whose jobs are not known in advance.
        """
        if not str(config.hydra.sweeper._target_).endswith(".BasicSweeper"):
            raise UserError(
                "task=sbatch was requested for a search, but a search proposes a job only after it knows the last "
                "result. Run the search with hydra/launcher=submitit_slurm instead."
            )
        self.config, self.hydra_context = config, hydra_context

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Print the script.

        Args:
            job_overrides: command-line overrides of each job.
            initial_job_idx: unused.

        Returns:
            An empty list: no job ran.
        """
        from warmstart.sweeps.sbatch import print_array, print_submitit

        load = self.hydra_context.config_loader.load_sweep_config
        configs = [load(self.config, list(words)) for words in job_overrides]
        if self.queue:
            print_submitit(configs, self.queue)
        else:
            print_array(configs)
        return []
