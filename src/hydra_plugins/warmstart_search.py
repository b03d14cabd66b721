"""The Hydra sweeper ``hydra/sweeper=search``; see warmstart/sweeps/search.py.

Hydra imports this file at every start, so it must not import anything heavy.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from warmstart.errors import UserError, install_extra


@dataclass
class SearchConf:
    """Options of a search (``hydra.sweeper.*``)."""

    _target_: str = "hydra_plugins.warmstart_search.SearchSweeper"
    trials: int = 20
    """Total number of points, including those of earlier runs of the same command."""
    parallel: int = 1
    """Points proposed and launched at a time; more than 1 needs a launcher that runs jobs in parallel."""
    sampler: str = "tpe"
    """Optuna's sampler: ``tpe`` or ``random``."""
    seed: int = 1
    """Seed of the sampler."""
    storage: str | None = None
    """SQLAlchemy URL of the study; null is search.db in the sweep's folder."""
    params: dict[str, str] = field(default_factory=dict)
    """The space, in Hydra's grammar: choice(a, b), range(1, 5), interval(0, 1), tag(log, interval(1e-5, 1))."""


ConfigStore.instance().store(group="hydra/sweeper", name="search", node=SearchConf, provider="warmstart")


class SearchSweeper(Sweeper):
    """Searches over the options whose value is a sweep; other overrides are the same for all jobs.

    ``SearchConf`` explains the arguments.
    """

    def __init__(
        self, trials: int, parallel: int, sampler: str, seed: int, storage: str | None, params: dict[str, str]
    ) -> None:
        """Keep the options."""
        self.trials, self.parallel, self.sampler, self.seed = trials, parallel, sampler, seed
        self.storage, self.params = storage, params
        self.launcher: Any = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra passes, and build the configured launcher."""
        self.config, self.hydra_context = config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Propose and run points until the study has ``trials`` of them.

        Args:
            arguments: overrides of the command line.

        Returns:
            The best value.

        Raises:
            UserError: Optuna is not installed, the space is invalid, or the study has searched another space.
            JobFailed: a point failed; the others were tried nevertheless.
        """
        if find_spec("optuna") is None:
            raise UserError(f"hydra/sweeper=search needs Optuna, which is not installed. {install_extra('search')}.")
        from warmstart.sweeps.search import search

        return search(self, arguments)

    def launch(self, batch: list[list[str]], first: int) -> Sequence[Any]:
        """Run jobs with the configured launcher.

        Args:
            batch: command-line overrides of each job.
            first: number of the first job.

        Returns:
            One result for each job, in order.
        """
        self.validate_batch_is_legal(batch)
        outcomes: Sequence[Any] = self.launcher.launch(batch, initial_job_idx=first)
        return outcomes
