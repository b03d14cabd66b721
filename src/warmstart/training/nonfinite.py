"""Skip optimizer steps with a non-finite loss or gradient, and stop a fit that has too many of them.

A skipped step changes neither weights nor optimizer state; it is counted and recorded with its examples. The fused
optimizer reads a flag on the device, so skipping needs no synchronisation, and the flags are read when metrics are
logged. Other optimizers have no such flag: each step synchronises, and a bad step gets no gradients.
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
_READINGS = 20  # logged losses that a spike is measured against
_SPIKE = 6.0  # standard deviations


class LossMonitor:
    """Watches the losses of one fit; ``skipped`` counts the skipped steps.

    Args:
        limit: optimizer steps that may be skipped.
    """

    def __init__(self, limit: int) -> None:
        """Start with no skipped steps."""
        self.limit = limit
        self.skipped = 0
        self._examples: list[Tensor] = []
        self._unread: list[tuple[int, int, list[Tensor], Tensor]] = []
        self._readings: deque[float] = deque(maxlen=_READINGS)

    def add_batch(self, batch: dict[str, Tensor]) -> None:
        """Remember the examples of a batch of the current optimizer step."""
        self._examples.append(batch["index"])

    def skip_if_nonfinite(
        self, optimizer: Any, loss: Tensor, norm: Tensor, *, step: int, epoch: int, scaled: bool
    ) -> None:
        """Make the optimizer skip the current step if its loss or gradient is not finite.

        Args:
            optimizer: the optimizer, possibly wrapped by Lightning.
            loss: mean loss of the step, a scalar.
            norm: gradient norm, a scalar.
            step: optimizer step.
            epoch: current epoch.
            scaled: whether gradients have a loss scale; the gradient scaler then checks them itself.
        """
        bad = ~torch.isfinite(loss) if scaled else ~(torch.isfinite(loss) & torch.isfinite(norm))
        if not scaled:
            optimizer = getattr(optimizer, "optimizer", optimizer)
            if all(group["fused"] for group in optimizer.param_groups):
                optimizer.found_inf = bad.float()
            elif bool(bad):
                optimizer.zero_grad(set_to_none=True)
        self._unread.append((step, epoch, self._examples, bad))
        self._examples = []

    def log_skipped(self, run_dir: Path, write: bool) -> bool:
        """Log the steps that were skipped since the last call; synchronises with the device.

        Args:
            run_dir: folder of the record.
            write: whether this rank writes the record.

        Returns:
            Whether more steps than the limit were skipped.
        """
        for step, epoch, examples, bad in self._unread:
            if bool(bad):
                self.skipped += 1
                ids = [int(i) for batch in examples for i in batch]
                _log.warning("Step %d was skipped: its loss or gradient is not finite. Examples: %s", step, ids)
                if write:
                    RunDir(run_dir).add_skipped_step(step, epoch, ids)
        self._unread = []
        return self.skipped > self.limit

    def warn_about_spike(self, loss: Tensor) -> None:
        """Log a warning if the loss is far above its last readings; synchronises with the device."""
        value = float(loss)
        if math.isfinite(value):
            if len(self._readings) == _READINGS:
                mean = sum(self._readings) / _READINGS
                deviation = math.sqrt(sum((reading - mean) ** 2 for reading in self._readings) / _READINGS)
                if value > mean + _SPIKE * deviation:
                    _log.warning("The loss jumped to %.3f; its last %d readings average %.3f.", value, _READINGS, mean)
            self._readings.append(value)

    def divergence_error(self, learning_rates: str) -> UserError:
        """Return the error that ends a fit with too many skipped steps."""
        return UserError(
            f"{self.skipped} steps were skipped because their loss or gradient was not finite: training diverged "
            f"(learning rates: {learning_rates}). {REMEDY} task=replay ckpt=RUN shows where the first non-finite value "
            "appears; the limit is trainer.skip_limit."
        )
