"""Which examples form which batch: planned for a whole epoch from seed and epoch alone.

An epoch's plan: shuffle all examples; cut the order into chunks of ``bucket`` batches; sort each chunk by length and
cut it into batches under the token budget; shuffle the batches. Every rank makes the same plan and takes its slice.

Each epoch has the same number of batches, and each rank the same share of it, without dropping or repeating an example:
where the plan has too few batches, the largest are halved. So the number of optimizer steps is known beforehand, and no
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

from warmstart.data.target_buckets import WORTH, parts_of

_log = logging.getLogger(__name__)

Batches = list[list[int]]


def pack(
    order: Sequence[int], source: list[int], target: list[int], max_tokens: int | None, size: int | None
) -> Batches:
    """Cut an order of examples into batches: rows x (longest source + longest target) within ``max_tokens``.

    An example that is longer than the budget is a batch of its own.
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


def brought_to(batches: Batches, count: int, *, repeat: bool = True) -> Batches:
    """At least as many batches as ``count``: the largest are halved until there are enough.

    When each batch is a single example (fewer examples than ranks, or all over the budget), ``repeat`` gives some
    twice; else there are fewer than ``count``.
    """
    heap = [(-len(batch), batch) for batch in batches]
    heapq.heapify(heap)
    while heap and len(heap) < count and len(heap[0][1]) > 1:
        _, batch = heapq.heappop(heap)
        half = (len(batch) + 1) // 2
        for part in (batch[:half], batch[half:]):
            heapq.heappush(heap, (-len(part), part))
    result = [batch for _, batch in sorted(heap)]
    single = len(result)
    while repeat and single and len(result) < count:
        result.append(list(result[len(result) - single]))
    return result


def padded_tokens(batches: Batches, source: list[int], target: list[int], worth: float = WORTH) -> int:
    """Tokens of all batches, padding included, as they are encoded together and decoded in parts."""
    tokens = 0
    for batch in batches:
        longest = max(source[i] for i in batch)
        parts = parts_of(longest, [target[i] for i in batch], worth)
        tokens += len(batch) * longest + sum(rows * length for rows, length in parts)
    return tokens


def evaluation_batches(
    source: Sequence[int], target: Sequence[int], max_tokens: int, *, rank: int = 0, world_size: int = 1
) -> Batches:
    """This rank's batches of a split: sorted by length, longest first, each example once over all ranks.

    Longest first, so that a batch that does not fit into memory fails at once.
    """
    source, target = list(map(int, source)), list(map(int, target))
    order = sorted(range(len(source)), key=lambda i: (-source[i], -target[i], i))
    batches = pack(order, source, target, max_tokens, None)
    count = math.ceil(len(batches) / world_size) * world_size
    if count > len(batches):
        batches = brought_to(batches, count, repeat=False)
        batches.sort(key=lambda batch: (-source[batch[0]], -target[batch[0]], batch[0]))
    return batches[rank::world_size]


class TokenBudgetBatchSampler(Sampler[list[int]]):
    """The training batches of one rank, shuffled anew in each epoch, with a position that a checkpoint can hold.

    Its position says where the epoch is resumed: ``load_state_dict`` sets it and another epoch clears it. What has been
    consumed is the trainer's knowledge, not the sampler's, because loader workers read ahead.
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
    ) -> None:
        if max_tokens is None and size is None:
            raise ValueError("a batch needs a token budget or a size")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is not among {world_size}")
        self.source = [int(length) for length in source_lengths]
        self.target = [int(length) for length in target_lengths]
        self.max_tokens, self.size, self.bucket = max_tokens, size, bucket
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.epoch = self.position = 0
        self._chunk = self.bucket * self._usual_rows()
        self.count = self._count()
        # Lightning calls set_epoch on the ``sampler`` of a batch sampler: it is its own.
        self.sampler = self

    def __len__(self) -> int:
        """Batches of this rank in an epoch, the same in each and wherever it is resumed."""
        return self.count // self.world_size

    def __iter__(self) -> Iterator[list[int]]:
        # A generator: the epoch and position that count are those at the first batch, not those at iter().
        yield from self.plan(self.epoch)[self.rank :: self.world_size][self.position :]

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; the one that is already set keeps its position."""
        if epoch != self.epoch:
            self.epoch, self.position = epoch, 0

    def plan(self, epoch: int) -> Batches:
        """All ranks' batches of an epoch, in order."""
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(self.source))
        chunk = self._chunk
        batches = self._pack(order, chunk)
        while len(batches) > self.count:  # seldom; one chunk over everything needs the fewest
            chunk *= 2
            batches = self._pack(order, chunk)
        if len(batches) < self.count:
            batches = brought_to(batches, self.count)
        return [batches[i] for i in rng.permutation(len(batches))]

    def padding_fraction(self, epoch: int = 0) -> float:
        """Share of an epoch's tokens that are padding."""
        padded = padded_tokens(self.plan(epoch), self.source, self.target)
        return 1 - (sum(self.source) + sum(self.target)) / padded if padded else 0.0

    def state_dict(self, consumed: int | None = None) -> dict[str, Any]:
        """Where the epoch stands after ``consumed`` batches of each rank (default: where it was resumed)."""
        consumed = self.position if consumed is None else consumed
        ended = consumed >= len(self)
        return {
            "epoch": self.epoch + ended,
            "batches": 0 if ended else consumed * self.world_size,
            "plan": self._plan_key(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state, at its :meth:`place_of`."""
        self.epoch, self.position = self.place_of(state)
        if state["plan"] != self._plan_key() and state["batches"]:
            _log.warning(
                "The training data, data.batch.*, the seed or the number of devices changed since the checkpoint: "
                "epoch %d starts from its first batch.",
                self.epoch,
            )

    def place_of(self, state: dict[str, Any]) -> tuple[int, int]:
        """Epoch and position of a state; where data, batching or seed are others now, the start of its epoch.

        Where that is between two steps of all ranks, it is the earlier one: some batches are trained on again.
        """
        same = state["plan"] == self._plan_key()
        return int(state["epoch"]), int(state["batches"]) // self.world_size if same else 0

    def _usual_rows(self) -> int:
        rows = self.size
        if self.max_tokens is not None and self.source:
            usual = (sum(self.source) + sum(self.target)) / len(self.source)
            fit = max(1, round(self.max_tokens / max(usual, 1)))
            rows = fit if rows is None else min(rows, fit)
        return rows or 1

    def _count(self) -> int:
        if not self.source:
            return 0
        packed = len(self._pack(np.random.default_rng([self.seed, 0]).permutation(len(self.source)), self._chunk))
        fewest = len(self._pack(np.arange(len(self.source)), len(self.source)))
        chunks = math.ceil(len(self.source) / self._chunk)
        # The last batch of each chunk is cut short at random: room for what that varies from epoch to epoch.
        room = 0 if chunks == 1 or self.max_tokens is None else math.ceil(1.5 * math.sqrt(chunks))
        wanted = min(max(packed, fewest) + room, len(self.source))
        return math.ceil(wanted / self.world_size) * self.world_size

    def _pack(self, order: np.ndarray, chunk: int) -> Batches:
        batches: Batches = []
        source, target = self.source, self.target
        for start in range(0, len(order), chunk):
            rows = sorted(order[start : start + chunk].tolist(), key=lambda i: (source[i], target[i]))
            batches += pack(rows, source, target, self.max_tokens, self.size)
        return batches

    def _plan_key(self) -> str:
        about = [self.seed, self.max_tokens, self.size, self.bucket, self.count]
        digest = hashlib.sha256(repr(about).encode())
        digest.update(np.asarray([self.source, self.target], dtype=np.int64).tobytes())
        return digest.hexdigest()[:16]
