"""How fast training goes, counted in tokens that are no padding and in the model's own FLOPs, and in what memory.

Time spent in validation is left out. Counts stay on the device until they are read, so that counting never waits.
"""

import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from warmstart.profiling.flops import TrainingFlops, lengths_seen
from warmstart.profiling.matrix_peak import MatrixPeak


class _Reading(NamedTuple):
    """Totals since the first batch."""

    seconds: float = 0.0
    tokens: float = 0.0
    examples: float = 0.0
    places: float = 0.0
    flops: float = 0.0


class ThroughputMeter:
    """Tokens, examples and FLOPs a second, their share of the device's peak, and the share of padding.

    Since the last reading, and over the whole fit.
    """

    def __init__(self) -> None:
        self._since: float | None = None
        self._now = self._last = _Reading()  # without what ``_seen`` has yet to add
        self._model_flops: TrainingFlops | None = None
        self._seen: Tensor | None = None  # of the batches that were not read yet

    def count(self, batch: dict[str, Any], flops: TrainingFlops, parts: Sequence[Sequence[int]] | None = None) -> None:
        """Add a batch, decoded in these ``parts``; the clock starts at the first.

        ``flops`` is what the model costs as it is now. Where that changes (a thaw), the device is waited for, once.
        """
        if self._since is None:
            self._since = time.perf_counter()
        if flops is not self._model_flops:
            self._read_seen()
            self._model_flops = flops
        seen = lengths_seen(batch, flops.window)
        self._seen = seen if self._seen is None else self._seen + seen
        decoded = sum(rows * longest for rows, longest in parts or [batch["labels"].shape])
        self._now = self._now._replace(
            examples=self._now.examples + len(batch["input_ids"]),
            places=self._now.places + batch["input_ids"].numel() + decoded,
        )

    def pause(self) -> None:
        """Stop the clock."""
        if self._since is not None:
            self._read_seen()  # waits for the device, whose work still belongs to the time before
            self._now = self._now._replace(seconds=self._now.seconds + time.perf_counter() - self._since)
            self._since = None

    def resume(self) -> None:
        """Let the clock go on, once anything was counted."""
        if self._now.places and self._since is None:
            self._since = time.perf_counter()

    def since_last_read(self, world_size: int = 1, peak: MatrixPeak | None = None) -> dict[str, float]:
        """Rates over all ranks since the last reading; ranks have equal shares.

        With the ``peak`` of this rank's device also the share of it that the model's FLOPs are (MFU).
        """
        before, self._last = self._last, self._reading()
        return _rates(_Reading(*(new - old for new, old in zip(self._last, before, strict=True))), world_size, peak)

    def total(self, world_size: int = 1, peak: MatrixPeak | None = None) -> dict[str, float]:
        """Rates over all ranks since the first batch."""
        return _rates(self._reading(), world_size, peak)

    def _reading(self) -> _Reading:
        running = self._since is not None
        self.pause()
        if running:
            self.resume()
        return self._now

    def _read_seen(self) -> None:
        if self._seen is None or self._model_flops is None:
            return
        self._now = self._now._replace(
            tokens=self._now.tokens + int(self._seen[:2].sum()),
            flops=self._now.flops + self._model_flops.total(self._seen),
        )
        self._seen = None


def _rates(of: _Reading, world_size: int, peak: MatrixPeak | None) -> dict[str, float]:
    seconds = max(of.seconds, 1e-9)
    rates = {
        "tokens_per_second": world_size * of.tokens / seconds,
        "examples_per_second": world_size * of.examples / seconds,
        "padding_fraction": 1 - of.tokens / of.places if of.places else 0.0,
        "model_flops_per_second": world_size * of.flops / seconds,
    }
    return rates if peak is None else rates | {"mfu": of.flops / seconds / peak.flops_per_second}


def peak_memory_bytes(device: torch.device) -> int:
    """The most that was allocated on a GPU, or this process's peak resident size."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource

    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
