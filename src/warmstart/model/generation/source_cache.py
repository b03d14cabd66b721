"""Share the keys and values of a source among its beams.

Queries of cross-attention do not attend to each other. The beams of a source are therefore folded into its target
length before the decoder's own cross-attention runs, and unfolded after it. The source is not repeated for beams, and
not reordered with them.

Shapes: B sources, K beams, R = B x K decoder sequences, T target length, S source length, H hidden size.
"""

import inspect
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache

_SOURCES = ("encoder_hidden_states", "key_value_states")


class SourceCache(DynamicCache):
    """Keys and values of the sources, one entry per source, which all its beams share."""

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Do nothing: reordering the beams of a source does not change its entry."""


def mask_of_sources(mask_RS: Tensor | None, sources: int) -> Tensor | None:
    """Return the masks (B, S) of masks (R, S) that ``generate`` has repeated for the beams."""
    if mask_RS is None or mask_RS.shape[0] == sources:
        return mask_RS
    return mask_RS[:: mask_RS.shape[0] // sources]


def unfold_weights(weights: Any, sequences: int) -> Any:
    """Reshape attention weights from (B, heads, K x T, S) to (R, heads, T, S); None and unfolded weights are returned.

    Args:
        weights: Attention weights, or None.
        sequences: R.
    """
    if not isinstance(weights, Tensor) or weights.shape[0] == sequences:
        return weights
    sources, heads, _, length = weights.shape
    return weights.view(sources, heads, sequences // sources, -1, length).transpose(1, 2).flatten(0, 1)


class FoldBeams:
    """Hooks of a cross-attention module that reshape its input (R, T, H) to (B, K x T, H), and its output back.

    They do nothing if every sequence has its own source. The number of beams is an attribute of the folded tensor
    instead of the hook, so that several threads can use the model.
    """

    def __init__(self, module: nn.Module) -> None:
        self.names = tuple(inspect.signature(type(module).forward).parameters)[1:]  # without self
        module.register_forward_pre_hook(self.fold, with_kwargs=True)
        module.register_forward_hook(self.unfold, with_kwargs=True)

    @classmethod
    def attach(cls, modules: Iterable[nn.Module]) -> None:
        """Add the hooks to each of ``modules``, unless it has them: another joint model may use the same decoder."""
        for module in modules:
            if not getattr(module, "folds_beams", False):
                cls(module)
                setattr(module, "folds_beams", True)  # noqa: B010 - nn.Module declares only parameters and modules

    def fold(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Fold the hidden states (R, T, H) to (B, K x T, H); a forward pre-hook.

        Raises:
            ValueError: R is not a multiple of B.
        """
        given = dict(zip(self.names, args, strict=False)) | kwargs
        source = next((given[name] for name in _SOURCES if given.get(name) is not None), None)
        hidden = given["hidden_states"]
        if source is None or source.shape[0] == hidden.shape[0]:
            return None
        sources, sequences = source.shape[0], hidden.shape[0]
        if sequences % sources:
            raise ValueError(
                f"{sequences} target sequences cannot share {sources} sources evenly. Pass the same number of each."
            )
        given["hidden_states"] = folded = hidden.reshape(sources, -1, hidden.shape[-1])
        folded.beams = sequences // sources
        for name, value in given.items():
            if name.endswith("mask") and isinstance(value, Tensor) and value.dim() == 4:
                # The mask (B, 1, T, S) is the same for every target position.
                given[name] = value[:, :, :1].expand(-1, -1, folded.shape[1], -1)
        return (), given

    def unfold(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """Unfold states (B, K x T, H) and attention weights (B, heads, K x T, S); a forward hook."""
        beams = getattr(kwargs.get("hidden_states"), "beams", None)
        if beams is None:
            return None
        hidden, *others = output if isinstance(output, tuple) else (output,)
        hidden = hidden.reshape(hidden.shape[0] * beams, -1, hidden.shape[-1])
        if not isinstance(output, tuple):
            return hidden
        return hidden, *(unfold_weights(other, hidden.shape[0]) for other in others)
