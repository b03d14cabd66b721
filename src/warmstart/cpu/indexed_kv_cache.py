"""An indexed KV cache: a token's keys and values stay where they were written, and no beam is ever copied.

A beam search reorders its rows at every step, and a cache that holds each row in one piece is copied for that. Here an
index says for each row and position which row of memory wrote it, and reordering moves the index. The kernel of
decode-step attention reads by the index (``cpu_kernels``). To everything else ``IndexedKV`` is an ordinary tensor: any
operation on it gets a copy with the rows in order.

Shapes: P rows of memory, R rows of the batch, N heads of keys, T target length, D head size.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from warmstart.compat.torch import DISABLED_TORCH_FUNCTION, wrapper_tensor
from warmstart.cpu.kernels import WIDTHS, are_plain, cpu_kernels

ROOM = 64  # positions that memory grows by; a copy of all at every so many steps


class IndexedKV(Tensor):
    """Keys or values (R, N, T, D): position t of row r is in row ``index_RT[r, t]`` of ``memory_PNTD``.

    The memory has room for more positions.
    """

    memory_PNTD: Tensor
    index_RT: Tensor

    @staticmethod
    def __new__(cls, memory_PNTD: Tensor, index_RT: Tensor) -> "IndexedKV":
        rows, length = index_RT.shape
        _, heads, _, width = memory_PNTD.shape
        shape = (rows, heads, length, width)
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
        """Return the rows as a plain tensor (R, N, T, D)."""
        kernels = cpu_kernels()
        if kernels is not None:
            return kernels.in_order(self.memory_PNTD, self.index_RT)
        rows_RTND = self.memory_PNTD[self.index_RT, :, torch.arange(self.index_RT.shape[1])]
        return rows_RTND.transpose(1, 2).contiguous()


def _in_order(given: Any) -> Any:
    """Return arguments of an operation with plain tensors, also inside lists and dicts."""
    if isinstance(given, IndexedKV):
        return given.in_order()
    if isinstance(given, dict):
        return {name: _in_order(value) for name, value in given.items()}
    if isinstance(given, list | tuple):
        ordered = map(_in_order, given)
        return list(ordered) if isinstance(given, list) else tuple(ordered)
    return given


class RowIndex:
    """Which row of memory holds each row's positions, for all layers of a cache: they are all reordered alike."""

    def __init__(self, rows: int, length: int) -> None:
        self.index_RT = torch.arange(rows)[:, None].repeat(1, length)
        self._last: Tensor | None = None

    def fit(self, keys_RNTD: Tensor) -> bool:
        """Return whether these are as many rows and positions."""
        return (keys_RNTD.shape[0], keys_RNTD.shape[2]) == self.index_RT.shape

    def reorder(self, beam_idx: Tensor) -> None:
        """Replace the rows by those at ``beam_idx``, which may be fewer. All layers call this with the same tensor."""
        if beam_idx is not self._last:
            self.index_RT = self.index_RT.index_select(0, beam_idx)
            self._last = beam_idx

    def up_to(self, length: int) -> Tensor:
        """Return (R, length): each row writes further positions into its own row of memory."""
        rows, known = self.index_RT.shape
        if known < length:
            own_R1 = torch.arange(rows)[:, None]
            self.index_RT = torch.cat([self.index_RT, own_R1.expand(-1, length - known)], dim=1)
        return self.index_RT


class IndexedLayer(DynamicLayer):
    """A layer of a cache whose memory has room for tokens to come."""

    def __init__(self, keys_RNTD: Tensor, values_RNTD: Tensor, index: RowIndex) -> None:
        super().__init__()
        self.lazy_initialization(keys_RNTD, values_RNTD)
        self.keys, self.values = keys_RNTD, values_RNTD
        self._index = index
        self._memory = [_with_room(x, x.shape[2]) for x in (keys_RNTD, values_RNTD)]

    @staticmethod
    def serves(keys: Tensor, values: Tensor) -> bool:
        """Return whether the kernel reads such keys and values by an index."""
        return (
            cpu_kernels() is not None
            and are_plain(keys, values)
            and keys.shape == values.shape
            and keys.dtype == values.dtype
            and keys.dtype in (torch.float32, torch.bfloat16)
            and keys.shape[-1] in WIDTHS
        )

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Replace the rows by those at ``beam_idx`` when the next token comes."""
        self._index.reorder(beam_idx)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append (R, N, new, D) to the reordered rows."""
        held = self.keys
        if held is None:
            raise ValueError("This layer of the cache was reset. Start the generation with a new cache.")
        rows, _, new, _ = key_states.shape
        begun = held.shape[2]
        index_RT = self._index.up_to(begun + new)
        if index_RT.shape != (rows, begun + new):
            raise ValueError(f"{rows} rows were given to a cache of {len(index_RT)} rows. Reorder the cache first.")
        made = []
        for which, states in enumerate((key_states, value_states)):
            if begun + new > self._memory[which].shape[2]:
                self._memory[which] = _with_room(self._memory[which], begun + new)
            self._memory[which].narrow(0, 0, rows).narrow(2, begun, new).copy_(states)
            made.append(IndexedKV(self._memory[which], index_RT))
        self.keys, self.values = made
        return made[0], made[1]


def _with_room(old_PNTD: Tensor, length: int) -> Tensor:
    memory, heads, length_before, width = old_PNTD.shape
    grown = old_PNTD.new_empty(memory, heads, length + ROOM, width)
    grown[:, :, :length_before] = old_PNTD
    return grown
