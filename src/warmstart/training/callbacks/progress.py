"""Show how far a fit is: a bar in a terminal or a notebook, lines elsewhere and in the log file.

    step 120 of 400 · loss 2.31 · ROUGE-1 31.2 · 1,240 tokens/s · 12 min left

The time left is that of the limit which ends the fit first, the optimizer steps or ``trainer.max_minutes``.
"""

import logging
import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from warmstart.config.training import TrainerSettings

SECONDS_BETWEEN_LINES = 30.0
_log = logging.getLogger(__name__)


class FitProgress(ProgressBar):
    """Shows loss, ROUGE, speed and the time left.

    Args:
        settings: the ``trainer`` config.
        total_steps: optimizer steps of the whole fit.
        console: where the bar is shown; None is standard error.
    """

    def __init__(self, settings: TrainerSettings, total_steps: int, console: Console | None = None) -> None:
        """Keep the settings; the bar starts with the training."""
        super().__init__()
        self.settings = settings
        self.total_steps = total_steps
        self.console = console or Console(stderr=True)
        self._bar: Progress | None = None
        self._began = self._last_line = 0.0
        self._first_step = self._written = 0

    def disable(self) -> None:
        """Do nothing: Lightning calls this on all ranks but the first, which ``is_global_zero`` tells, too."""

    def enable(self) -> None:
        """Do nothing; the counterpart of ``disable``."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock, and the bar where one can be drawn."""
        self._began = self._last_line = time.monotonic()
        self._first_step = trainer.global_step
        if trainer.is_global_zero and (self.console.is_terminal or self.console.is_jupyter):
            columns = (BarColumn(24), TextColumn("{task.description}"))
            self._bar = Progress(*columns, console=self.console, transient=True)
            self._bar.add_task("", total=self.total_steps, completed=self._first_step)
            self._bar.start()

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        """Show the state after an optimizer step."""
        if not trainer.is_global_zero:
            return
        now = time.monotonic()
        if self._bar is not None:
            shown = self.state(trainer, now)
            self._bar.update(self._bar.task_ids[0], completed=trainer.global_step, description=shown)
        if now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            self._write_line(self.state(trainer, now))
            self._written = trainer.global_step

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remove the bar, and write the last line."""
        self._stop()
        if trainer.is_global_zero and self._written != trainer.global_step:
            self._write_line(self.state(trainer, time.monotonic()))

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Remove the bar, so that the message is not drawn over."""
        self._stop()

    def state(self, trainer: L.Trainer, now: float) -> str:
        """Return the line about the fit at a time in seconds of ``time.monotonic``."""
        known = {name: float(value) for name, value in trainer.callback_metrics.items()}
        parts = [f"step {trainer.global_step:,} of {self.total_steps:,}"]
        if "train/loss" in known:
            parts.append(f"loss {known['train/loss']:.2f}")
        if "validation/rouge1" in known:
            parts.append(f"ROUGE-1 {known['validation/rouge1']:.1f}")
        if "throughput/tokens_per_second" in known:
            parts.append(f"{known['throughput/tokens_per_second']:,.0f} tokens/s")
        taken = trainer.global_step - self._first_step
        if taken > 0 and trainer.global_step < self.total_steps:
            parts.append(self._left((now - self._began) / taken * (self.total_steps - trainer.global_step), now))
        return " · ".join(parts)

    def _left(self, seconds: float, now: float) -> str:
        if self.settings.max_minutes is not None:
            until_limit = max(0.0, 60 * self.settings.max_minutes - (now - self._began))
            if until_limit < seconds:
                return f"{duration(until_limit)} left (trainer.max_minutes)"
        return f"{duration(seconds)} left"

    def _write_line(self, line: str) -> None:
        if self._bar is None:
            _log.info("%s", line)
            return
        # The terminal has the bar, so only the log file gets the line.
        record = _log.makeRecord(_log.name, logging.INFO, __file__, 0, "%s", (line,), None)
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.FileHandler):
                handler.handle(record)

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()


def duration(seconds: float) -> str:
    """Return a duration in words: ``40 s``, ``12 min`` or ``3 h 05 min``."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
