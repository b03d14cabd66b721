"""Keep a run alive if W&B fails, for example because the disk is full or its process was killed.

Everything that W&B shows is also in ``metrics.csv``, ``validation_samples.jsonl`` and ``result.json``.
"""

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch.loggers import WandbLogger

_log = logging.getLogger(__name__)
# The methods that Lightning calls.
_METHODS = ("log_metrics", "log_hyperparams", "log_graph", "after_save_checkpoint", "save", "finalize")
_logged: set[str] = set()
LONGEST_REASON = 300  # characters; the first line is not enough, it can be "1 validation error for Settings"


@contextmanager
def log_wandb_errors() -> Iterator[None]:
    """Log errors in this block instead of raising them, each message once. Only call W&B in it."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - no error of W&B may end a run
        reason = (" ".join(str(error).split()) or type(error).__name__)[:LONGEST_REASON].rstrip(".")
        if reason not in _logged:
            _logged.add(reason)
            _log.error(
                "W&B: %s. W&B does not show all of this run. The run continues and writes all its files.", reason
            )


def guard_wandb_logger(logger: WandbLogger) -> WandbLogger:
    """Wrap the methods that Lightning calls in ``log_wandb_errors``; returns the same logger."""
    for name in _METHODS:
        setattr(logger, name, _guarded(getattr(logger, name)))
    return logger


def _guarded(call: Any) -> Any:
    @functools.wraps(call)
    def guarded(*args: Any, **kwargs: Any) -> None:
        with log_wandb_errors():
            call(*args, **kwargs)

    return guarded
