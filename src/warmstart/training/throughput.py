"""Measure training throughput in tokens without padding and in the model's FLOPs, and the peak memory.

Time spent in validation does not count. The counts stay on the device until they are read, so that counting does not
synchronize with it.
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
    positions: float = 0.0  # tokens and padding
    flops: float = 0.0


class ThroughputMeter:
    """Count tokens, examples and FLOPs per second, the model FLOPs utilization (MFU) and the fraction of padding.

    It reports them since the last reading and for the whole fit.
    """

    def __init__(self) -> None:
        """Start with all counts at zero and the clock stopped."""
        self._since: float | None = None
        self._now = self._last = _Reading()  # does not include ``_seen`` yet
        self._model_flops: TrainingFlops | None = None
        self._seen: Tensor | None = None  # sums over the batches since the last reading

    def count(
        self, batch: dict[str, Any], flops: TrainingFlops, buckets: Sequence[Sequence[int]] | None = None
    ) -> None:
        """Add a batch; the first one starts the clock.

        Args:
            batch: ``input_ids``, ``attention_mask`` and ``labels``, each (examples, positions).
            flops: cost of the model with its current frozen parameters. When it changes, because parameters unfreeze,
                the meter synchronizes with the device once.
            buckets: examples and target positions of each target-length bucket; None if the decoder runs once.
        """
        if self._since is None:
            self._since = time.perf_counter()
        if flops is not self._model_flops:
            self._read_seen()
            self._model_flops = flops
        seen = lengths_seen(batch, flops.window)
        self._seen = seen if self._seen is None else self._seen + seen
        decoded = sum(examples * longest for examples, longest in buckets or [batch["labels"].shape])
        self._now = self._now._replace(
            examples=self._now.examples + len(batch["input_ids"]),
            positions=self._now.positions + batch["input_ids"].numel() + decoded,
        )

    def pause(self) -> None:
        """Stop the clock."""
        if self._since is not None:
            self._read_seen()  # synchronizes first: the device's pending work belongs to the time before the pause
            self._now = self._now._replace(seconds=self._now.seconds + time.perf_counter() - self._since)
            self._since = None

    def resume(self) -> None:
        """Restart the clock, unless nothing was counted yet."""
        if self._now.positions and self._since is None:
            self._since = time.perf_counter()

    def since_last_read(self, world_size: int = 1, peak: MatrixPeak | None = None) -> dict[str, float]:
        """Return the throughput of all ranks since the last reading, if each rank does the same work.

        Args:
            world_size: number of ranks.
            peak: measured peak of this rank's device; None leaves ``mfu`` out.

        Returns:
            ``tokens_per_second``, ``examples_per_second``, ``padding_fraction``, ``model_flops_per_second`` and
            ``mfu``, the model's FLOPs as a share of the peak.
        """
        before, self._last = self._last, self._reading()
        return _per_second(
            _Reading(*(new - old for new, old in zip(self._last, before, strict=True))), world_size, peak
        )

    def total(self, world_size: int = 1, peak: MatrixPeak | None = None) -> dict[str, float]:
        """Return the same values as ``since_last_read``, since the first batch."""
        return _per_second(self._reading(), world_size, peak)

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


def _per_second(of: _Reading, world_size: int, peak: MatrixPeak | None) -> dict[str, float]:
    seconds = max(of.seconds, 1e-9)
    values = {
        "tokens_per_second": world_size * of.tokens / seconds,
        "examples_per_second": world_size * of.examples / seconds,
        "padding_fraction": 1 - of.tokens / of.positions if of.positions else 0.0,
        "model_flops_per_second": world_size * of.flops / seconds,
    }
    return values if peak is None else values | {"mfu": of.flops / seconds / peak.flops_per_second}


def peak_memory_bytes(device: torch.device) -> int:
    """Return the peak allocation on a GPU, or else this process's peak resident set size, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource

    # Linux reports KiB, macOS bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
