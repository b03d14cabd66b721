"""Hydra's sweeper ``hydra/sweeper=search``: the plugin of
warmstart/sweeps/search.py.

Hydra imports this file at every start, so that it imports nothing heavy.
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

from warmstart.errors import UserError


@dataclass
class SearchConf:
    """What a researcher chooses about a search (``hydra.sweeper.*``)."""

    _target_: str = "hydra_plugins.warmstart_search.SearchSweeper"
    trials: int = 20
    """Points to try in all, those of earlier calls of the same command included."""
    parallel: int = 1
    """Points proposed and launched at a time; more than 1 needs a launcher that runs jobs beside each other."""
    sampler: str = "tpe"
    """Optuna's ``tpe`` or ``random``."""
    seed: int = 1
    """Seed of the sampler."""
    storage: str | None = None
    """SQLAlchemy URL of the study; null is search.db in the sweep's folder."""
    params: dict[str, str] = field(default_factory=dict)
    """The space, by Hydra's grammar: choice(a, b), range(1, 5), interval(0, 1), tag(log, interval(1e-5, 1))."""


ConfigStore.instance().store(group="hydra/sweeper", name="search", node=SearchConf, provider="warmstart")


class SearchSweeper(Sweeper):
    """Searches the points that are overridden by a sweep; every other override is the same for all jobs."""

    def __init__(
        self, trials: int, parallel: int, sampler: str, seed: int, storage: str | None, params: dict[str, str]
    ) -> None:
        self.trials, self.parallel, self.sampler, self.seed = trials, parallel, sampler, seed
        self.storage, self.params = storage, params
        self.launcher: Any = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.hydra_context = config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Propose, launch and note points until ``trials`` of them are known; the best value.

        Raises:
            UserError: the space is wrong, or not the one that this study searched before.
            JobFailed: some point failed; the others were tried all the same.
        """
        if find_spec("optuna") is None:
            raise UserError("hydra/sweeper=search needs Optuna. Install warmstart[search].")
        from warmstart.sweeps.search import search

        return search(self, arguments)

    def launch(self, batch: list[list[str]], first: int) -> Sequence[Any]:
        """Run jobs by the configured launcher, the first of which has the number ``first``."""
        self.validate_batch_is_legal(batch)
        return self.launcher.launch(batch, initial_job_idx=first)
