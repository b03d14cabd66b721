"""Losses that are not finite or leap: skipped, counted, noted with their examples, and the end of a fit of too many.

A step whose loss or gradient is not finite changes nothing: neither weights nor moments. The fused optimizer is told
so on the device, which is not waited for; what happened is read where the device is read anyway. Any other optimizer
takes no such word: there each step waits, and a bad one has its gradients taken away.
"""

import logging
import math
from collections import deque
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from warmstart.errors import UserError
from warmstart.runs.run_dir import RunDir

_log = logging.getLogger(__name__)
REMEDY = (
    "Lower optim.encoder_rate, decoder_rate or new_rate, lengthen optim.warmup_steps, or set trainer.precision=32-true."
)
_READINGS = 20  # of the loss, that a leap is measured against
_LEAP = 6.0  # standard deviations


class LossWatch:
    """Watches the steps of one fit; ``skipped`` is how many were."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.skipped = 0
        self._examples: list[Tensor] = []
        self._unread: list[tuple[int, int, list[Tensor], Tensor]] = []
        self._readings: deque[float] = deque(maxlen=_READINGS)

    def take(self, batch: dict[str, Tensor]) -> None:
        """Note a batch of the step that is being made."""
        self._examples.append(batch["index"])

    def judge(self, optimizer: Any, loss: Tensor, norm: Tensor, *, step: int, epoch: int, scaled: bool) -> None:
        """Let the optimizer skip this step if it must. Under a loss scale, the scaler does so for gradients."""
        bad = ~torch.isfinite(loss) if scaled else ~(torch.isfinite(loss) & torch.isfinite(norm))
        if not scaled:
            optimizer = getattr(optimizer, "optimizer", optimizer)
            if all(group["fused"] for group in optimizer.param_groups):
                optimizer.found_inf = bad.float()
            elif bool(bad):
                optimizer.zero_grad(set_to_none=True)
        self._unread.append((step, epoch, self._examples, bad))
        self._examples = []

    def read(self, run_dir: Path, write: bool) -> bool:
        """Look at the steps since the last reading, which waits for the device; whether there are too many bad ones."""
        for step, epoch, examples, bad in self._unread:
            if bool(bad):
                self.skipped += 1
                ids = [int(i) for part in examples for i in part]
                _log.warning("Step %d was skipped: its loss or gradient is not finite. Examples: %s", step, ids)
                if write:
                    RunDir(run_dir).add_skipped_step(step, epoch, ids)
        self._unread = []
        return self.skipped > self.limit

    def compare(self, loss: Tensor) -> None:
        """Say where the loss leapt above its last readings; waits for the device."""
        value = float(loss)
        if math.isfinite(value):
            if len(self._readings) == _READINGS:
                mean = sum(self._readings) / _READINGS
                deviation = math.sqrt(sum((reading - mean) ** 2 for reading in self._readings) / _READINGS)
                if value > mean + _LEAP * deviation:
                    _log.warning("The loss leapt to %.3f, from %.3f in the last %d readings.", value, mean, _READINGS)
            self._readings.append(value)

    def too_many(self, rates: str) -> UserError:
        """What the person reads at the end of such a fit."""
        return UserError(
            f"{self.skipped} steps were skipped because their loss or gradient was not finite: training diverged "
            f"(rates: {rates}). {REMEDY} task=replay ckpt=THE RUN shows where it begins; the limit is "
            "trainer.skip_limit."
        )
