"""Keys and values that beams share: a row reads each position where it was written, and no beam is ever copied.

A beam search gives rows a new order at every step, and a cache that holds each row in one piece is copied for that as a
whole. Here a token's keys and values stay in the row that wrote them; what a row reads is a list of places, one for
each position, and the order moves the lists. The kernel of few queries reads by such a list (``cpu_kernels``). To
everything else ``Placed`` is an ordinary tensor: any operation on it gets the rows in order, in memory of their own.

Shapes: M rows of memory, R rows of the batch, N heads of keys, T target length, D width of a head.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only
from transformers.cache_utils import DynamicLayer

from warmstart.cpu.build import WIDTHS, are_plain, cpu_kernels

ROOM = 64  # positions that memory grows by; a copy of all at every so many steps


class Placed(Tensor):
    """Keys or values (R, N, T, D), of which row r's position t stands in row ``places_RT[r, t]`` of ``memory_MNTD``.

    Memory has room for more positions.
    """

    memory_MNTD: Tensor
    places_RT: Tensor

    @staticmethod
    def __new__(cls, memory_MNTD: Tensor, places_RT: Tensor) -> "Placed":
        rows, length = places_RT.shape
        _, heads, _, width = memory_MNTD.shape
        shape = (rows, heads, length, width)
        made: Placed = Tensor._make_wrapper_subclass(cls, shape, dtype=memory_MNTD.dtype, device=memory_MNTD.device)
        made.memory_MNTD, made.places_RT = memory_MNTD, places_RT
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        args, kwargs = tree_map_only(cls, cls.in_order, (args, kwargs or {}))
        return func(*args, **kwargs)

    def in_order(self) -> Tensor:
        """The rows as a plain tensor (R, N, T, D)."""
        kernels = cpu_kernels()
        assert kernels is not None
        return kernels.in_order(self.memory_MNTD, self.places_RT)


class Places:
    """Where each row's positions stand, for all layers of a cache, since they all get the same order."""

    def __init__(self, rows: int, length: int) -> None:
        self.of_RT = torch.arange(rows)[:, None].repeat(1, length)
        self._last: Tensor | None = None

    def fit(self, keys_RNTD: Tensor) -> bool:
        """Whether these are of as many rows and positions."""
        return (keys_RNTD.shape[0], keys_RNTD.shape[2]) == self.of_RT.shape

    def reorder(self, beam_idx: Tensor) -> None:
        """Rows become those at ``beam_idx``, and some may go. Every layer says so, with one and the same tensor."""
        if beam_idx is not self._last:
            self.of_RT = self.of_RT.index_select(0, beam_idx)
            self._last = beam_idx

    def up_to(self, length: int) -> Tensor:
        """(R, length): what comes after the positions so far is written by each row into its own."""
        rows, so_far = self.of_RT.shape
        if so_far < length:
            own_R1 = torch.arange(rows)[:, None]
            self.of_RT = torch.cat([self.of_RT, own_R1.expand(-1, length - so_far)], dim=1)
        return self.of_RT


class PlacedLayer(DynamicLayer):
    """A layer's keys and values in memory with room for tokens to come."""

    def __init__(self, keys_RNTD: Tensor, values_RNTD: Tensor, places: Places) -> None:
        super().__init__()
        self.lazy_initialization(keys_RNTD, values_RNTD)
        self.keys, self.values = keys_RNTD, values_RNTD
        self._places = places
        self._memory = [_with_room(x, x.shape[2]) for x in (keys_RNTD, values_RNTD)]

    @staticmethod
    def serves(keys: Tensor, values: Tensor) -> bool:
        """Whether the kernel reads such keys and values where they stand."""
        return (
            cpu_kernels() is not None
            and are_plain(keys, values)
            and keys.shape == values.shape
            and keys.dtype == values.dtype
            and keys.dtype in (torch.float32, torch.bfloat16)
            and keys.shape[-1] in WIDTHS
        )

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Rows become those at ``beam_idx`` when the next token comes."""
        self._places.reorder(beam_idx)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append (R, N, new, D) to the reordered rows."""
        assert self.keys is not None
        rows, _, new, _ = key_states.shape
        begun = self.keys.shape[2]
        places_RT = self._places.up_to(begun + new)
        assert places_RT.shape == (rows, begun + new)
        made = []
        for which, states in enumerate((key_states, value_states)):
            if begun + new > self._memory[which].shape[2]:
                self._memory[which] = _with_room(self._memory[which], begun + new)
            self._memory[which].narrow(0, 0, rows).narrow(2, begun, new).copy_(states)
            made.append(Placed(self._memory[which], places_RT))
        self.keys, self.values = made
        return made[0], made[1]


def _with_room(old_MNTD: Tensor, length: int) -> Tensor:
    memory, heads, so_far, width = old_MNTD.shape
    grown = old_MNTD.new_empty(memory, heads, length + ROOM, width)
    grown[:, :, :so_far] = old_MNTD
    return grown
