"""A source is encoded once and attended to by many rows: keys and values exist once for each source, not for each beam.

Queries of cross-attention do not see each other, so the beams of one source are folded into its target length before a
decoder's own cross-attention runs, and unfolded behind it. Nothing of that attention is written again here, and nothing
of the source is repeated, or reordered when beams change places.

Shapes: B sources, K beams, R = B x K rows of the decoder, T target length, S source length, H width.
"""

import inspect
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache

_SOURCES = ("encoder_hidden_states", "key_value_states")


class SourceCache(DynamicCache):
    """Keys and values of the sources: rows of the target may be exchanged, repeated and dropped without moving them."""

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Beams of one source share its entry, so exchanging them changes nothing."""


def mask_of_sources(mask_RS: Tensor | None, sources: int) -> Tensor | None:
    """The mask of each source, where ``generate`` has repeated it for every row that shares it."""
    if mask_RS is None or mask_RS.shape[0] == sources:
        return mask_RS
    return mask_RS[:: mask_RS.shape[0] // sources]


def weights_by_row(weights: Any, rows: int) -> Any:
    """Cross-attention's weights (B, heads, K x T, S) as (R, heads, T, S); what is by row, or none, stays as it is."""
    if not isinstance(weights, Tensor) or weights.shape[0] == rows:
        return weights
    sources, heads, _, length = weights.shape
    return weights.view(sources, heads, rows // sources, -1, length).transpose(1, 2).flatten(0, 1)


class FoldBeams:
    """Hooks on one cross-attention module: (R, T, H) goes in as (B, K x T, H) and comes back as it was.

    Where every row has a source of its own they do nothing. The number of beams travels on the folded tensor, so that
    calls of several threads do not meet.
    """

    def __init__(self, module: nn.Module) -> None:
        self.names = tuple(inspect.signature(type(module).forward).parameters)[1:]  # without self
        module.register_forward_pre_hook(self.fold, with_kwargs=True)
        module.register_forward_hook(self.unfold, with_kwargs=True)

    @classmethod
    def attach(cls, modules: Iterable[nn.Module]) -> None:
        """Fold in each of ``modules``, once: the decoder may be another joint model's already."""
        for module in modules:
            if not getattr(module, "folds_beams", False):
                cls(module)
                setattr(module, "folds_beams", True)  # noqa: B010 - the type knows parameters and modules only

    def fold(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Raises ValueError where the rows are no multiple of the sources."""
        given = dict(zip(self.names, args, strict=False)) | kwargs
        source = next((given[name] for name in _SOURCES if given.get(name) is not None), None)
        hidden = given["hidden_states"]
        if source is None or source.shape[0] == hidden.shape[0]:
            return None
        sources, rows = source.shape[0], hidden.shape[0]
        if rows % sources:
            raise ValueError(f"{rows} target rows cannot share {sources} sources evenly.")
        given["hidden_states"] = folded = hidden.reshape(sources, -1, hidden.shape[-1])
        folded.beams = rows // sources
        for name, value in given.items():
            if name.endswith("mask") and isinstance(value, Tensor) and value.dim() == 4:
                # (B, 1, T, S) says the same of every target position.
                given[name] = value[:, :, :1].expand(-1, -1, folded.shape[1], -1)
        return (), given

    def unfold(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """States (B, K x T, H) and attentions (B, heads, K x T, S) by row again."""
        beams = getattr(kwargs.get("hidden_states"), "beams", None)
        if beams is None:
            return None
        hidden, *others = output if isinstance(output, tuple) else (output,)
        hidden = hidden.reshape(hidden.shape[0] * beams, -1, hidden.shape[-1])
        if not isinstance(output, tuple):
            return hidden
        return hidden, *(weights_by_row(other, hidden.shape[0]) for other in others)
