"""How fast training goes, counted in tokens that are no padding, and how much memory it took.

Time spent in validation is left out. Counts stay on the device until they are read, so that counting never waits.
"""

import sys
import time

import torch
from torch import Tensor


class ThroughputMeter:
    """Tokens and examples a second and the share of padding: since the last reading, and over the whole fit."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._seconds = 0.0
        self._examples = self._places = 0
        self._tokens: Tensor | float = 0.0
        self._last = (0.0, 0.0, 0, 0)  # seconds, tokens, examples, places at the last reading

    def count(self, batch: dict[str, Tensor]) -> None:
        """Add a batch; the clock starts at the first."""
        if self._since is None:
            self._since = time.perf_counter()
        self._examples += len(batch["input_ids"])
        self._tokens = self._tokens + batch["attention_mask"].sum() + (batch["labels"] != -100).sum()
        self._places += batch["input_ids"].numel() + batch["labels"].numel()

    def pause(self) -> None:
        """Stop the clock."""
        if self._since is not None:
            float(self._tokens)  # waits for the device, whose work still belongs to the time before
            self._seconds += time.perf_counter() - self._since
            self._since = None

    def resume(self) -> None:
        """Let the clock go on, once anything was counted."""
        if self._places and self._since is None:
            self._since = time.perf_counter()

    def since_last_read(self, world_size: int = 1) -> dict[str, float]:
        """Rates over all ranks since the last reading; ranks have equal shares."""
        now = self._reading()
        seconds, tokens, examples, places = (new - old for new, old in zip(now, self._last, strict=True))
        self._last = now
        return _rates(seconds, tokens, examples, places, world_size)

    def total(self, world_size: int = 1) -> dict[str, float]:
        """Rates over all ranks since the first batch."""
        return _rates(*self._reading(), world_size)

    def _reading(self) -> tuple[float, float, int, int]:
        running = self._since is not None
        self.pause()
        if running:
            self.resume()
        return self._seconds, float(self._tokens), self._examples, self._places


def _rates(seconds: float, tokens: float, examples: float, places: float, world_size: int) -> dict[str, float]:
    seconds = max(seconds, 1e-9)
    return {
        "tokens_per_second": world_size * tokens / seconds,
        "examples_per_second": world_size * examples / seconds,
        "padding_fraction": 1 - tokens / places if places else 0.0,
    }


def peak_memory_bytes(device: torch.device) -> int:
    """The most that was allocated on a GPU, or this process's peak resident size."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource

    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
