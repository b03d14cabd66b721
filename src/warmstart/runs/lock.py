"""One process at a time writes into a run's folder: of two fits, one would train on the other's checkpoints.

A lock (:mod:`warmstart.locks`), which ends with its process. A job of a sweep waits for the process that runs it; a
run that is not part of a sweep ends with one message, before Hydra has written anything.
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

from warmstart.errors import UserError
from warmstart.locks import Lock
from warmstart.printing import say
from warmstart.runs.explain import explain
from warmstart.runs.run_dir import RunDir

_log = logging.getLogger(__name__)
TASKS = ("fit", "evaluate")  # those that write a result.json
# Of srun, torchrun and Lightning: any that is not 0 says that another process started the run.
_RANK_OF = ("SLURM_PROCID", "RANK", "LOCAL_RANK", "NODE_RANK")


class RunLock(Callback):
    """Hydra's callback that holds a run's folder from before Hydra writes into it until the run ends."""

    def __init__(self) -> None:
        self._held = ExitStack()

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Refuse a sweep whose name is empty."""
        _refuse_empty_name(config)

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Lock the folder of the run, or end with one message if another process has it."""
        _refuse_empty_name(config)
        if config.task not in TASKS:
            return
        HydraConfig.instance().set_config(config)  # as Hydra does next: the folder's name may ask for it
        try:
            self._held.enter_context(held(Path(str(config.hydra.run.dir))))
        except (UserError, OSError) as error:  # Hydra makes a warning of them, and runs the job
            say(f"warmstart: {explain(error) or error}", file=sys.stderr)
            sys.exit(2)

    def on_run_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Release the lock."""
        self._held.close()


def _refuse_empty_name(config: DictConfig) -> None:
    """A variable that was not set would make the folder of all runs one run."""
    if config.name is not None and not str(config.name).strip(" ./"):
        say(f"warmstart: name={config.name} names no folder. Give it a word, or leave it out.", file=sys.stderr)
        sys.exit(2)


@contextmanager
def held(run_dir: Path, *, wait: bool = False) -> Iterator[None]:
    """In this block no other process has ``run_dir``; further ranks go along with rank 0, which has it for all.

    Raises:
        UserError: another process has it and this one is not to wait, or nobody can say whether that one still runs.
    """
    if any(int(os.environ.get(name) or 0) > 0 for name in _RANK_OF):
        yield
        return
    run_dir.mkdir(parents=True, exist_ok=True)
    lock = Lock(RunDir(run_dir).lock)
    if not lock.acquire(wait=False):
        who = "" if (holder := lock.holder()) is None else f" ({holder})"
        if not wait:
            raise UserError(f"Another process writes into {run_dir}{who}. Wait for its end, or set another name=.")
        _log.info("Another process%s runs this job; waiting for it: %s", who, run_dir)
        lock.acquire(wait=True)
    try:
        yield
    finally:
        lock.release()
