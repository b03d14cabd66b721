"""Hydra's launcher ``hydra/launcher=sbatch``, which ``-m task=sbatch`` takes: it prints what SLURM would run.

Hydra imports this file at every start, so that it imports nothing heavy.
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
    """Nothing to choose: the script is there to be read and changed."""

    _target_: str = "hydra_plugins.warmstart_sbatch.SbatchLauncher"


ConfigStore.instance().store(group="hydra/launcher", name="sbatch", node=SbatchConf, provider="warmstart")


class SbatchLauncher(Launcher):
    """Runs nothing: prints one batch script for all jobs; of submitit's launcher, submitit's own."""

    def __init__(self, **queue: Any) -> None:
        self.queue = queue
        """The settings of ``hydra/launcher=submitit_slurm``, where that was to be printed."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep the sweep's config.

        Raises:
            UserError: the sweep's jobs are not known beforehand.
        """
        if not str(config.hydra.sweeper._target_).endswith(".BasicSweeper"):
            raise UserError(
                "task=sbatch was asked for in a search, which proposes a point once it knows the last. Run the search "
                "itself with hydra/launcher=submitit_slurm."
            )
        self.config, self.hydra_context = config, hydra_context

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Print the script; there is nothing that a job returned."""
        from warmstart.sweeps.sbatch import print_array, print_submitit

        load = self.hydra_context.config_loader.load_sweep_config
        configs = [load(self.config, list(words)) for words in job_overrides]
        if self.queue:
            print_submitit(configs, self.queue)
        else:
            print_array(configs)
        return []
