"""Allow only one process at a time to write into a run's folder.

Two fits in one folder would overwrite each other's checkpoints. The lock (``warmstart.locks``) is released when its
process ends. A job of a sweep waits until the other process is done. Any other run ends with an error message before
Hydra writes a file.
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from warmstart.errors import UserError
from warmstart.locks import Lock
from warmstart.printing import say
from warmstart.runs.explain import explain
from warmstart.runs.run_dir import RunDir

_log = logging.getLogger(__name__)
TASKS = ("fit", "evaluate")  # the tasks that write a result.json
# Set by srun, torchrun and Lightning. If one is not 0, this process is not rank 0.
_RANK_OF = ("SLURM_PROCID", "RANK", "LOCAL_RANK", "NODE_RANK")


class RunLock(Callback):
    """Hydra callback that locks a run's folder before Hydra writes into it, until the run ends."""

    def __init__(self) -> None:
        self._held = ExitStack()

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Reject an empty ``name``."""
        _refuse_empty_name(config)

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Lock the run's folder; if another process holds the lock, print an error and exit with status 2."""
        _refuse_empty_name(config)
        if config.task not in TASKS:
            return
        HydraConfig.instance().set_config(config)  # Hydra does this later, but the folder's name may need it
        try:
            self._held.enter_context(held(Path(str(config.hydra.run.dir))))
        except (UserError, OSError, OmegaConfBaseException) as error:  # Hydra would only log a warning and run the job
            say(f"warmstart: {explain(error) or error}", file=sys.stderr)
            sys.exit(2)

    def on_run_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Release the lock."""
        self._held.close()


def _refuse_empty_name(config: DictConfig) -> None:
    """Exit if ``name`` is empty, for example an unset shell variable: the run's folder would be that of all runs."""
    if config.name is not None and not str(config.name).strip(" ./"):
        say(f"warmstart: name={config.name} names no folder. Set a name, or leave name= out.", file=sys.stderr)
        sys.exit(2)


@contextmanager
def held(run_dir: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock of a run's folder in this block. Rank 0 holds it for all ranks.

    Args:
        run_dir: the folder; it is created if it does not exist.
        wait: whether to wait for another process that holds the lock.

    Raises:
        UserError: another process holds the lock and ``wait`` is false, or it is unknown whether that process still
            runs.
    """
    if any(int(os.environ.get(name) or 0) > 0 for name in _RANK_OF):
        yield
        return
    run_dir.mkdir(parents=True, exist_ok=True)
    lock = Lock(RunDir(run_dir).lock)
    if not lock.acquire(wait=False):
        owner = "" if (holder := lock.holder()) is None else f" ({holder})"
        if not wait:
            raise UserError(f"Another process writes into {run_dir}{owner}. Wait until it ends, or set another name=.")
        _log.info("Waiting for another process%s that runs this job: %s", owner, run_dir)
        lock.acquire(wait=True)
    try:
        yield
    finally:
        lock.release()
