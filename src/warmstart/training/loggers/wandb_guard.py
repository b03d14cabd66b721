"""W&B shows a run, it does not make one: where it fails (a full disk, its process killed), the run goes on without it.

Everything that it shows is in ``metrics.csv``, ``validation_samples.jsonl`` and ``result.json`` as well.
"""

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch.loggers import WandbLogger

_log = logging.getLogger(__name__)
_CALLED = ("log_metrics", "log_hyperparams", "log_graph", "after_save_checkpoint", "save", "finalize")  # by Lightning
_said: set[str] = set()
LONGEST_REASON = 300  # characters: a first line alone can be "1 validation error for Settings"


@contextmanager
def failing_alone() -> Iterator[None]:
    """In this block W&B is called and nothing else: each of its errors is logged once, and none ends the run."""
    try:
        yield
    except Exception as error:
        reason = (" ".join(str(error).split()) or type(error).__name__)[:LONGEST_REASON].rstrip(".")
        if reason not in _said:
            _said.add(reason)
            _log.error(
                "W&B: %s. W&B does not show all of this run. The run continues and writes all its files.", reason
            )


def let_fail_alone(logger: WandbLogger) -> WandbLogger:
    """Have what Lightning calls of W&B's logger end no fit."""
    for name in _CALLED:
        setattr(logger, name, _alone(getattr(logger, name)))
    return logger


def _alone(call: Any) -> Any:
    @functools.wraps(call)
    def alone(*args: Any, **kwargs: Any) -> None:
        with failing_alone():
            call(*args, **kwargs)

    return alone
