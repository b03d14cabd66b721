"""Private APIs of Lightning, checked in 2.6.6."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
from lightning.fabric.strategies.launchers import subprocess_script as of_fabric
from lightning.pytorch.strategies.launchers import subprocess_script as of_trainer

_MODULES: tuple[Any, ...] = (of_trainer, of_fabric)


def skip_sigterm_broadcast(trainer: L.Trainer) -> None:
    """Skip the check, in every batch, whether any rank has received SIGTERM; it waits for the device.

    Replaces ``epoch_loop._broadcast_sigterm_tensor``: the trainer has no option for it.
    """
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]


def set_logged_step(trainer: L.Trainer, step: int) -> None:
    """Set the step number that Lightning passes to loggers.

    Sets ``epoch_loop._batches_that_stepped``: it is separate from ``global_step``, and no public API sets it.
    """
    trainer.fit_loop.epoch_loop._batches_that_stepped = step


@contextmanager
def process_observer(observe: Callable[[list[Any]], None]) -> Iterator[None]:
    """Within the context, call ``observe`` with the processes of the other ranks after Lightning has started them.

    Replaces ``subprocess_script._launch_process_observer``, which kills all processes of the job if one fails. There is
    no option for it.
    """
    before = [module._launch_process_observer for module in _MODULES]
    for module in _MODULES:
        module._launch_process_observer = observe
    try:
        yield
    finally:
        for module, function in zip(_MODULES, before, strict=True):
            module._launch_process_observer = function
