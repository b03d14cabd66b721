"""Plan the batches of a whole epoch from the seed and the epoch number.

To plan an epoch, shuffle all examples, cut the order into chunks of ``bucket`` batches, sort each chunk by length, cut
it into batches within the token budget, and shuffle the batches. Every rank makes the same plan and takes its slice.

Every epoch has the same number of batches, and every rank the same share, without dropping or repeating an example. If
a plan has too few batches, the largest ones are halved. So the number of optimizer steps is known in advance, and no
rank waits for another.
"""

import hashlib
import heapq
import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from warmstart.data.target_buckets import MIN_SAVING, target_buckets
from warmstart.data.tokenization.source_layout import SourceLayout

_log = logging.getLogger(__name__)

Batches = list[list[int]]


def pack(
    order: Sequence[int], source: list[int], target: list[int], max_tokens: int | None, size: int | None
) -> Batches:
    """Cut an order of examples into batches.

    Args:
        order: Indices of the examples.
        source: Source tokens of each example.
        target: Label tokens of each example.
        max_tokens: Token budget: the batch size times the longest source plus the longest target. An example longer
            than the budget is a batch of its own. None sets no budget.
        size: Maximum batch size; None sets none.

    Returns:
        Batches of indices.
    """
    batches: Batches = []
    batch: list[int] = []
    longest_source = longest_target = 0
    for i in order:
        wider_source, wider_target = max(longest_source, source[i]), max(longest_target, target[i])
        tokens = (len(batch) + 1) * (wider_source + wider_target)
        full = (max_tokens is not None and tokens > max_tokens) or (size is not None and len(batch) >= size)
        if batch and full:
            batches.append(batch)
            batch, wider_source, wider_target = [], source[i], target[i]
        batch.append(i)
        longest_source, longest_target = wider_source, wider_target
    if batch:
        batches.append(batch)
    return batches


def at_least(batches: Batches, count: int, *, repeat: bool = True) -> Batches:
    """Halve the largest batches until there are at least ``count``.

    If all batches are single examples and there are still too few, some are repeated, or with ``repeat=False`` fewer
    than ``count`` are returned.
    """
    heap = [(-len(batch), batch) for batch in batches]
    heapq.heapify(heap)
    while heap and len(heap) < count and len(heap[0][1]) > 1:
        _, batch = heapq.heappop(heap)
        half = (len(batch) + 1) // 2
        for piece in (batch[:half], batch[half:]):
            heapq.heappush(heap, (-len(piece), piece))
    result = [batch for _, batch in sorted(heap)]
    single = len(result)
    while repeat and single and len(result) < count:
        result.append(list(result[len(result) - single]))
    return result


def padded_tokens(batches: Batches, source: list[int], target: list[int], min_saving: float = MIN_SAVING) -> int:
    """Count the tokens of all batches with padding: sources padded per batch, targets per target-length bucket."""
    tokens = 0
    for batch in batches:
        longest = max(source[i] for i in batch)
        buckets = target_buckets(longest, [target[i] for i in batch], min_saving)
        tokens += len(batch) * longest + sum(size * length for size, length in buckets)
    return tokens


def evaluation_batches(
    source: Sequence[int], target: Sequence[int], max_tokens: int, *, rank: int = 0, world_size: int = 1
) -> Batches:
    """Return this rank's batches of a validation or test split; each example is on one rank, once.

    Batches are sorted by length, longest first, so that a batch that does not fit into memory fails at once.

    Args:
        source: Source tokens of each example.
        target: Label tokens of each example.
        max_tokens: Token budget of a batch, see ``pack``.
        rank: This rank.
        world_size: Number of ranks.
    """
    source, target = list(map(int, source)), list(map(int, target))
    order = sorted(range(len(source)), key=lambda i: (-source[i], -target[i], i))
    batches = pack(order, source, target, max_tokens, None)
    count = math.ceil(len(batches) / world_size) * world_size
    if count > len(batches):
        batches = at_least(batches, count, repeat=False)
        batches.sort(key=lambda batch: (-source[batch[0]], -target[batch[0]], batch[0]))
    return batches[rank::world_size]


class TokenBudgetBatchSampler(Sampler[list[int]]):
    """The training batches of one rank, reshuffled every epoch, resumable in the middle of an epoch.

    ``position`` is the batch at which the epoch resumes; ``load_state_dict`` sets it and a new epoch resets it. How
    many batches were consumed is known only to the trainer, because loader workers read ahead.

    Args:
        source_lengths: Source tokens of each example (N,).
        target_lengths: Label tokens of each example (N,).
        max_tokens: Token budget of a batch, see ``pack``.
        size: Maximum batch size.
        bucket: Batches per chunk that is sorted by length.
        seed: Seed of the shuffles.
        rank: This rank.
        world_size: Number of ranks.
        layout: How sources are cut into windows; None if each is one window.

    Raises:
        ValueError: Neither ``max_tokens`` nor ``size`` is set, or the rank is out of range.
    """

    def __init__(
        self,
        source_lengths: Sequence[int] | np.ndarray,
        target_lengths: Sequence[int] | np.ndarray,
        *,
        max_tokens: int | None,
        size: int | None = None,
        bucket: int = 100,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        layout: SourceLayout | None = None,
    ) -> None:
        if max_tokens is None and size is None:
            raise ValueError("a batch needs a token budget or a size")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is not among {world_size}")
        source = [int(length) for length in source_lengths]
        self._source_tokens = sum(source)
        # A batch pads the last window of a source to the length of the others.
        self.source = source if layout is None else [layout.padded_length(length) for length in source]
        self.target = [int(length) for length in target_lengths]
        self.max_tokens, self.size, self.bucket = max_tokens, size, bucket
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.epoch = self.position = 0
        self._chunk = self.bucket * self._typical_batch_size()
        self.count = self._count()
        # Lightning calls set_epoch on a batch sampler's ``sampler``.
        self.sampler = self

    def __len__(self) -> int:
        """Return the number of this rank's batches in a whole epoch, the same in every epoch."""
        return self.count // self.world_size

    def __iter__(self) -> Iterator[list[int]]:
        # A generator, because the epoch and position are read at the first batch, not at iter().
        yield from self.plan(self.epoch)[self.rank :: self.world_size][self.position :]

    def set_epoch(self, epoch: int) -> None:
        """Start an epoch; if it is the current one, its position is kept."""
        if epoch != self.epoch:
            self.epoch, self.position = epoch, 0

    def plan(self, epoch: int) -> Batches:
        """Return all ranks' batches of an epoch, in order."""
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(self.source))
        chunk = self._chunk
        batches = self._pack(order, chunk)
        while len(batches) > self.count:  # rare; larger chunks make fewer batches
            chunk *= 2
            batches = self._pack(order, chunk)
        if len(batches) < self.count:
            batches = at_least(batches, self.count)
        return [batches[i] for i in rng.permutation(len(batches))]

    def padding_fraction(self, epoch: int = 0) -> float:
        """Return the fraction of an epoch's tokens that are padding."""
        padded = padded_tokens(self.plan(epoch), self.source, self.target)
        return 1 - (self._source_tokens + sum(self.target)) / padded if padded else 0.0

    def state_dict(self, consumed: int | None = None) -> dict[str, Any]:
        """Return the state after ``consumed`` batches of each rank; by default, that at which the epoch resumed."""
        consumed = self.position if consumed is None else consumed
        ended = consumed >= len(self)
        return {
            "epoch": self.epoch + ended,
            "batches": 0 if ended else consumed * self.world_size,
            "plan": self._plan_key(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume at the position that ``position_of`` returns for a state."""
        self.epoch, self.position = self.position_of(state)
        if state["plan"] != self._plan_key() and state["batches"]:
            _log.warning(
                "The training data, data.batch.*, the seed or the number of devices changed since the checkpoint: "
                "epoch %d starts from its first batch.",
                self.epoch,
            )

    def position_of(self, state: dict[str, Any]) -> tuple[int, int]:
        """Return the epoch and the batch of each rank at which a state resumes.

        If data, batching or seed changed, that is the first batch of its epoch. If the number of batches is not a
        multiple of the number of ranks, it is rounded down: some batches are trained on again.
        """
        same = state["plan"] == self._plan_key()
        return int(state["epoch"]), int(state["batches"]) // self.world_size if same else 0

    def _typical_batch_size(self) -> int:
        size = self.size
        if self.max_tokens is not None and self.source:
            mean = (sum(self.source) + sum(self.target)) / len(self.source)
            fit = max(1, round(self.max_tokens / max(mean, 1)))
            size = fit if size is None else min(size, fit)
        return size or 1

    def _count(self) -> int:
        if not self.source:
            return 0
        packed = len(self._pack(np.random.default_rng([self.seed, 0]).permutation(len(self.source)), self._chunk))
        fewest = len(self._pack(np.arange(len(self.source)), len(self.source)))
        chunks = math.ceil(len(self.source) / self._chunk)
        # The last batch of each chunk has a random size, so the number of batches varies from epoch to epoch.
        margin = 0 if chunks == 1 or self.max_tokens is None else math.ceil(1.5 * math.sqrt(chunks))
        wanted = min(max(packed, fewest) + margin, len(self.source))
        return math.ceil(wanted / self.world_size) * self.world_size

    def _pack(self, order: np.ndarray, chunk: int) -> Batches:
        batches: Batches = []
        source, target = self.source, self.target
        for start in range(0, len(order), chunk):
            indices = sorted(order[start : start + chunk].tolist(), key=lambda i: (source[i], target[i]))
            batches += pack(indices, source, target, self.max_tokens, self.size)
        return batches

    def _plan_key(self) -> str:
        about = [self.seed, self.max_tokens, self.size, self.bucket, self.count]
        digest = hashlib.sha256(repr(about).encode())
        digest.update(np.asarray([self.source, self.target], dtype=np.int64).tobytes())
        return digest.hexdigest()[:16]
