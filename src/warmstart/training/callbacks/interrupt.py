"""Leaving a fit when asked to: save at the end of the step, say so, and end with the signal's status.

SIGTERM and SIGUSR1 are what clusters send before they take a machine away, SIGINT is Ctrl-C. The same command goes on
from what was saved, to the same weights. Under SLURM, SIGUSR1 also puts the job back into the queue.
"""

import logging
import os
import signal
import subprocess
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from warmstart.compat.lightning import skip_sigterm_broadcast
from warmstart.errors import Left

_log = logging.getLogger(__name__)
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Leave(Callback):
    """Saves ``last.ckpt`` between two steps, every ``save_every`` of them and when a signal has come, then leaves.

    A validation is finished first after SIGUSR1, which comes with minutes to spare; SIGTERM and SIGINT leave it at
    once, and the steps since the last checkpoint are taken again. A second SIGINT waits for nothing.
    """

    def __init__(self, last: Path, save_every: int | None = None) -> None:
        self.last = last
        self.save_every = save_every
        self.asked_by: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._saved_at = -1
        self._launcher: Any = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._launcher = trainer.strategy.launcher
        self._saved_at = trainer.global_step
        # Lightning's own question to all ranks waits for the device in every batch; here they agree by themselves.
        skip_sigterm_broadcast(trainer)
        if threading.current_thread() is threading.main_thread():
            # After Lightning has set its own.
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        # Between two optimizer steps, after their validation: what is saved here has nothing half done.
        if not pl_module.between_steps:
            return
        step = trainer.global_step
        if self._all_leave(trainer, pl_module):
            trainer.save_checkpoint(self.last)
            self._requeue(trainer)
            raise Left(self.asked_by or signal.SIGTERM, self.last)
        if self.save_every and step % self.save_every == 0 and step != self._saved_at:
            trainer.save_checkpoint(self.last)
            self._saved_at = step

    def on_validation_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        if self.asked_by in (signal.SIGTERM, signal.SIGINT):
            raise Left(self.asked_by, None)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked_by is signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked_by = signal.Signals(number)
        # Ranks that Lightning started hear of it from here alone; Ctrl-C reaches them all by itself.
        if self._launcher is not None and number != signal.SIGINT:
            self._launcher.kill(number)

    def _all_leave(self, trainer: L.Trainer, module: Any) -> bool:
        """Whether any rank was asked to, agreed on by all at the same step."""
        if trainer.world_size == 1:
            return self.asked_by is not None
        if module.device.type != "cpu" and trainer.global_step % module.log_every:
            return False  # reading the answer waits for the device
        asked = torch.tensor([self.asked_by or 0], device=module.device)
        torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
        number = int(asked)
        if number and self.asked_by is None:
            self.asked_by = signal.Signals(number)
        return bool(number)

    def _requeue(self, trainer: L.Trainer) -> None:
        job = slurm_job(dict(os.environ))
        if self.asked_by is signal.SIGUSR1 and trainer.is_global_zero and job:
            try:
                outcome = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
            except OSError as error:  # the state is saved: whoever asked can start it again
                _log.warning("scontrol requeue %s: %s", job, error)
                return
            _log.info("scontrol requeue %s: status %d %s", job, outcome.returncode, outcome.stderr.strip())


def slurm_job(environment: dict[str, str]) -> str | None:
    """The id that ``scontrol requeue`` takes: of a job, or of one task of an array."""
    if array := environment.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{environment['SLURM_ARRAY_TASK_ID']}"
    return environment.get("SLURM_JOB_ID")


def asked_to_leave(trainer: L.Trainer) -> signal.Signals | None:
    """The signal that a fit has had, though it ended by an error: another rank may have left first."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    return next((callback.asked_by for callback in callbacks if isinstance(callback, Leave)), None)
