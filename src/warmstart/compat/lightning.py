"""Private parts of Lightning, read in 2.6.6."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
from lightning.fabric.strategies.launchers import subprocess_script as of_fabric
from lightning.pytorch.strategies.launchers import subprocess_script as of_trainer

_MODULES: tuple[Any, ...] = (of_trainer, of_fabric)


def skip_sigterm_broadcast(trainer: L.Trainer) -> None:
    """Stop a fit from asking all ranks in every batch whether one has received SIGTERM, which waits for the device.

    ``epoch_loop._broadcast_sigterm_tensor``: the trainer has no option for it.
    """
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]


def set_logged_step(trainer: L.Trainer, step: int) -> None:
    """Set the step number that loggers get.

    ``epoch_loop._batches_that_stepped``: Lightning counts it apart from ``global_step``, and nothing public sets it.
    """
    trainer.fit_loop.epoch_loop._batches_that_stepped = step


@contextmanager
def process_observer(observe: Callable[[list[Any]], None]) -> Iterator[None]:
    """Inside, ``observe`` is called with the processes of further ranks once Lightning has started them.

    ``subprocess_script._launch_process_observer``: the launcher calls this function of its module, which kills every
    process of the job when one fails; there is no option.
    """
    before = [module._launch_process_observer for module in _MODULES]
    for module in _MODULES:
        module._launch_process_observer = observe
    try:
        yield
    finally:
        for module, function in zip(_MODULES, before, strict=True):
            module._launch_process_observer = function
