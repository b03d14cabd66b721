"""Graceful shutdown of a fit: on a signal, save a checkpoint after the current step and end with the signal's status.

Clusters send SIGTERM or SIGUSR1 before they take a machine away; Ctrl-C is SIGINT. The same command resumes from the
checkpoint and ends with the same weights as an uninterrupted fit. Under SLURM, SIGUSR1 also requeues the job.
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
from warmstart.errors import Interrupted

_log = logging.getLogger(__name__)
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class GracefulShutdown(Callback):
    """Saves ``last.ckpt`` every ``save_every`` optimizer steps, and saves it and ends the fit after a signal.

    During a validation, SIGUSR1 lets it finish, because it comes minutes before the end. SIGTERM and SIGINT end it at
    once; the fit then resumes from the last checkpoint. A second SIGINT ends the fit immediately.

    Args:
        last: path of the checkpoint.
        save_every: optimizer steps between checkpoints; None saves only after a signal.
    """

    def __init__(self, last: Path, save_every: int | None = None) -> None:
        """Keep the settings; signal handlers are set when training starts."""
        self.last = last
        self.save_every = save_every
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._saved_at = -1
        self._launcher: Any = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Set the signal handlers, if this is the main thread."""
        self._launcher = trainer.strategy.launcher
        self._saved_at = trainer.global_step
        # Lightning would broadcast its own SIGTERM flag, and so synchronise with the device, in every batch.
        skip_sigterm_broadcast(trainer)
        if threading.current_thread() is threading.main_thread():
            # Lightning has set its handlers by now, so these replace them.
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restore the signal handlers."""
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Save a checkpoint if one is due, and end the fit if any rank received a signal.

        Raises:
            Interrupted: after the checkpoint was saved.
        """
        # Only between two optimizer steps: a checkpoint cannot hold accumulated gradients.
        if not pl_module.between_steps:
            return
        step = trainer.global_step
        if self._any_rank_received(trainer, pl_module):
            trainer.save_checkpoint(self.last)
            self._requeue(trainer)
            raise Interrupted(self.received or signal.SIGTERM, self.last)
        if self.save_every and step % self.save_every == 0 and step != self._saved_at:
            trainer.save_checkpoint(self.last)
            self._saved_at = step

    def on_validation_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        """End a validation after SIGTERM or SIGINT.

        Raises:
            Interrupted: without a new checkpoint.
        """
        if self.received in (signal.SIGTERM, signal.SIGINT):
            raise Interrupted(self.received, None)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Restore the signal handlers."""
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)
        # Forward it to the ranks that Lightning started; the terminal sends Ctrl-C to all of them itself.
        if self._launcher is not None and number != signal.SIGINT:
            self._launcher.kill(number)

    def _any_rank_received(self, trainer: L.Trainer, module: Any) -> bool:
        """Return whether any rank received a signal; all ranks get the same answer at the same step."""
        if trainer.world_size == 1:
            return self.received is not None
        if module.device.type != "cpu" and trainer.global_step % module.log_every:
            return False  # ask only when metrics are logged: the answer synchronises with the device
        received = torch.tensor([self.received or 0], device=module.device)
        torch.distributed.all_reduce(received, torch.distributed.ReduceOp.MAX)
        number = int(received)
        if number and self.received is None:
            self.received = signal.Signals(number)
        return bool(number)

    def _requeue(self, trainer: L.Trainer) -> None:
        job = slurm_job(dict(os.environ))
        if self.received is signal.SIGUSR1 and trainer.is_global_zero and job:
            try:
                outcome = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
            except OSError as error:  # the checkpoint is saved, so the user can start the job again
                _log.warning("scontrol requeue %s: %s", job, error)
                return
            _log.info("scontrol requeue %s: status %d %s", job, outcome.returncode, outcome.stderr.strip())


def slurm_job(environment: dict[str, str]) -> str | None:
    """Return the id for ``scontrol requeue``: of a job, or of one task of a job array; None outside of SLURM."""
    if array := environment.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{environment['SLURM_ARRAY_TASK_ID']}"
    return environment.get("SLURM_JOB_ID")


def received_signal(trainer: L.Trainer) -> signal.Signals | None:
    """Return the signal that a fit received, if any.

    A fit that ended with an error may have received one too: if another rank ends first, a collective call fails.
    """
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    return next((callback.received for callback in callbacks if isinstance(callback, GracefulShutdown)), None)
