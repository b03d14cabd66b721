"""An indexed KV cache, which reorders beams without copying keys and values.

Beam search reorders its sequences at every step. Here an index stores for each sequence and position the memory row
with its key and value, and only the index is reordered. The kernel of decode-step attention reads through the index
(``cpu_kernels``). Any other operation gets an ordinary tensor: a copy with the sequences in order.

Shapes: P memory rows, R sequences, N key heads, T target length, D head size.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from warmstart.compat.torch import DISABLED_TORCH_FUNCTION, wrapper_tensor
from warmstart.cpu.kernels import HEAD_SIZES, are_plain, cpu_kernels

ROOM = 64  # positions that memory grows by; each time it grows, everything is copied


class IndexedKV(Tensor):
    """Keys or values (R, N, T, D): those of sequence r at position t are in row ``index_RT[r, t]`` of ``memory_PNTD``.

    The memory may have room for more positions.
    """

    memory_PNTD: Tensor
    index_RT: Tensor

    @staticmethod
    def __new__(cls, memory_PNTD: Tensor, index_RT: Tensor) -> "IndexedKV":
        """Make the tensor (R, N, T, D) without copying."""
        sequences, length = index_RT.shape
        _, heads, _, size = memory_PNTD.shape
        shape = (sequences, heads, length, size)
        made: IndexedKV = wrapper_tensor(cls, shape, like=memory_PNTD)
        made.memory_PNTD, made.index_RT = memory_PNTD, index_RT
        return made

    __torch_function__ = DISABLED_TORCH_FUNCTION

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return func(*_in_order(args), **_in_order(kwargs or {}))

    def in_order(self) -> Tensor:
        """Return a copy as a plain tensor (R, N, T, D)."""
        kernels = cpu_kernels()
        if kernels is not None:
            return kernels.in_order(self.memory_PNTD, self.index_RT)
        rows_RTND = self.memory_PNTD[self.index_RT, :, torch.arange(self.index_RT.shape[1])]
        return rows_RTND.transpose(1, 2).contiguous()


def _in_order(given: Any) -> Any:
    """Replace every ``IndexedKV`` in an operation's arguments by a plain tensor, also in lists and dicts."""
    if isinstance(given, IndexedKV):
        return given.in_order()
    if isinstance(given, dict):
        return {name: _in_order(value) for name, value in given.items()}
    if isinstance(given, list | tuple):
        ordered = map(_in_order, given)
        return list(ordered) if isinstance(given, list) else tuple(ordered)
    return given


class RowIndex:
    """The memory row of each sequence and position (R, T), shared by all layers of a cache."""

    def __init__(self, rows: int, length: int) -> None:
        self.index_RT = torch.arange(rows)[:, None].repeat(1, length)
        self._last: Tensor | None = None

    def fit(self, keys_RNTD: Tensor) -> bool:
        """Return whether keys have as many sequences and positions as this index."""
        return (keys_RNTD.shape[0], keys_RNTD.shape[2]) == self.index_RT.shape

    def reorder(self, beam_idx: Tensor) -> None:
        """Select the sequences ``beam_idx``, which may be fewer than R.

        All layers of a cache call this with the same tensor, and only the first call has an effect.
        """
        if beam_idx is not self._last:
            self.index_RT = self.index_RT.index_select(0, beam_idx)
            self._last = beam_idx

    def up_to(self, length: int) -> Tensor:
        """Extend the index to ``length`` positions; a sequence writes new positions to the memory row of its number."""
        rows, known = self.index_RT.shape
        if known < length:
            own_R1 = torch.arange(rows)[:, None]
            self.index_RT = torch.cat([self.index_RT, own_R1.expand(-1, length - known)], dim=1)
        return self.index_RT


class IndexedLayer(DynamicLayer):
    """A cache layer with memory for more positions, read through a ``RowIndex``."""

    def __init__(self, keys_RNTD: Tensor, values_RNTD: Tensor, index: RowIndex) -> None:
        super().__init__()
        self.lazy_initialization(keys_RNTD, values_RNTD)
        self.keys, self.values = keys_RNTD, values_RNTD
        self._index = index
        self._memory = [_with_room(x, x.shape[2]) for x in (keys_RNTD, values_RNTD)]

    @staticmethod
    def serves(keys: Tensor, values: Tensor) -> bool:
        """Return whether the kernel can read these keys and values through an index."""
        return (
            cpu_kernels() is not None
            and are_plain(keys, values)
            and keys.shape == values.shape
            and keys.dtype == values.dtype
            and keys.dtype in (torch.float32, torch.bfloat16)
            and keys.shape[-1] in HEAD_SIZES
        )

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Select the sequences ``beam_idx`` of the index."""
        self._index.reorder(beam_idx)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write keys and values (R, N, new, D) of new positions.

        Returns:
            All keys and values (R, N, T + new, D), as ``IndexedKV``.

        Raises:
            ValueError: The layer was reset, or the number of sequences differs from the cache's.
        """
        held = self.keys
        if held is None:
            raise ValueError("This cache layer was reset. Start the generation with a new cache.")
        rows, _, new, _ = key_states.shape
        begun = held.shape[2]
        index_RT = self._index.up_to(begun + new)
        if index_RT.shape != (rows, begun + new):
            raise ValueError(
                f"{rows} sequences were passed to a cache of {len(index_RT)} sequences. Reorder the cache first."
            )
        updated = []
        for which, states in enumerate((key_states, value_states)):
            if begun + new > self._memory[which].shape[2]:
                self._memory[which] = _with_room(self._memory[which], begun + new)
            self._memory[which].narrow(0, 0, rows).narrow(2, begun, new).copy_(states)
            updated.append(IndexedKV(self._memory[which], index_RT))
        self.keys, self.values = updated
        return updated[0], updated[1]


def _with_room(old_PNTD: Tensor, length: int) -> Tensor:
    memory, heads, length_before, size = old_PNTD.shape
    grown = old_PNTD.new_empty(memory, heads, length + ROOM, size)
    grown[:, :, :length_before] = old_PNTD
    return grown
