"""KV cache of the target in beam search: reorders the beams and appends a token in one copy, and reuses memory.

transformers' cache is copied twice a step, to reorder the beams and to append a token, each time to new memory. Here
the reordering waits for the next token, so that one copy is enough, and the next layer reuses the freed memory.

Shapes: R sequences, N key heads, T target length, D head size.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from warmstart.cpu.indexed_kv_cache import IndexedLayer, RowIndex


class Spare:
    """Freed memory for the next layer: one piece for keys and one for values, since layers grow one after the other."""

    def __init__(self) -> None:
        self._pieces: list[Tensor] = []

    def take(self, elements: int, like: Tensor) -> Tensor:
        """Return a flat tensor with at least ``elements`` elements, of the dtype and on the device of ``like``."""
        for number, piece in enumerate(self._pieces):
            if piece.numel() >= elements and piece.dtype == like.dtype and piece.device == like.device:
                return self._pieces.pop(number)
        return like.new_empty(elements + elements // 2)  # with room for later steps

    def leave(self, piece: Tensor) -> None:
        """Keep the memory of ``piece`` for the next ``take``."""
        self._pieces = [*self._pieces[-1:], piece]


class BeamLayer(DynamicLayer):
    """Keys and values (R, N, T, D) of a layer, contiguous; ``reorder_cache`` takes effect at the next ``update``."""

    def __init__(self, spare: Spare) -> None:
        super().__init__()
        self.spare = spare
        self._order: Tensor | None = None
        self._memory: list[Tensor | None] = [None, None]

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Select the sequences ``beam_idx``, which may be fewer than R, at the next ``update``."""
        self._order = beam_idx

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append keys and values (R, N, new, D) to the reordered sequences.

        Returns:
            All keys and values (R, N, T + new, D).
        """
        if self.keys is None or self.values is None or self.keys.numel() == 0:
            return super().update(key_states, value_states, *args, **kwargs)
        self.keys = self._grown(0, self.keys, key_states)
        self.values = self._grown(1, self.values, value_states)
        self._order = None
        return self.keys, self.values

    def _grown(self, which: int, old_RNTD: Tensor, new_RNTD: Tensor) -> Tensor:
        sequences, heads, new, size = new_RNTD.shape
        length = old_RNTD.shape[2]
        elements = sequences * heads * (length + new) * size
        memory = self.spare.take(elements, old_RNTD)
        grown = memory[:elements].view(sequences, heads, length + new, size)
        if self._order is None:
            grown[:, :, :length] = old_RNTD
        else:
            torch.index_select(old_RNTD, 0, self._order, out=grown[:, :, :length])
        grown[:, :, length:] = new_RNTD
        left, self._memory[which] = self._memory[which], memory
        if left is not None:
            self.spare.leave(left)
        return grown


def use_beam_layers(cache: DynamicCache, indexed: bool) -> None:
    """Replace each ``DynamicLayer`` of ``cache`` by an indexed or a ``BeamLayer``, in place; the contents are kept.

    Args:
        cache: The target's cache. Layers with a sliding window are not replaced.
        indexed: Whether the decoder's attention can read an indexed KV cache.
    """
    spare, index = Spare(), None
    for number, layer in enumerate(cache.layers):
        if type(layer) is not DynamicLayer:
            continue
        keys, values = layer.keys, layer.values
        if keys is not None and values is not None and indexed and IndexedLayer.serves(keys, values):
            index = index or RowIndex(keys.shape[0], keys.shape[2])
            if index.fit(keys):
                cache.layers[number] = IndexedLayer(keys, values, index)
                continue
        cache.layers[number] = mine = BeamLayer(spare)
        if keys is not None and values is not None:
            mine.lazy_initialization(keys, values)
            mine.keys, mine.values = keys, values
