"""How new cross-attention begins: random, or a copy of the same layer's self-attention.

Nobody has published the comparison at BERT scale on summaries; T5Gemma, VAMBA and CEPE report gains from copying where
the widths match (docs/decisions.md has our own figures).
"""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from warmstart.model.decoders import cross_attention_modules

_SELF_ATTENTION_NAMES = ("attention", "attn", "self_attn")
_NORMS = {"ln_cross_attn": "ln_1", "encoder_attn_layer_norm": "self_attn_layer_norm"}


@torch.no_grad()
def copy_self_attention(decoder: PreTrainedModel) -> int:
    """Copy each layer's self-attention into its cross-attention, in place, where shapes agree.

    Returns:
        How many tensors were copied.

    Raises:
        ValueError: a layer's self-attention cannot be found.
    """
    copied = 0
    for name, cross in cross_attention_modules(decoder).items():
        layer = decoder.get_submodule(name.rpartition(".")[0])
        found = [getattr(layer, n) for n in _SELF_ATTENTION_NAMES if isinstance(getattr(layer, n, None), nn.Module)]
        if not found:
            raise ValueError(f"cross_attention_init=copy: no self-attention beside {name} in {type(layer).__name__}.")
        source = _as_cross_attention(found[0])
        pairs = [(tensor, source.get(key)) for key, tensor in cross.named_parameters()]
        for norm, of_self in _NORMS.items():
            if hasattr(layer, norm):
                theirs = dict(getattr(layer, of_self).named_parameters())
                pairs += [(tensor, theirs.get(key)) for key, tensor in getattr(layer, norm).named_parameters()]
        for tensor, value in pairs:
            if value is not None and value.shape == tensor.shape:
                tensor.copy_(value)
                copied += 1
    return copied


def _as_cross_attention(attention: nn.Module) -> dict[str, Tensor]:
    """Self-attention's tensors under cross-attention's names: GPT-2 fuses query, key and value in one, by columns."""
    tensors: dict[str, Tensor] = dict(attention.named_parameters())
    if "c_attn.weight" in tensors and "q_attn.weight" not in tensors:
        width = tensors["c_attn.weight"].shape[0]
        for kind in ("weight", "bias"):
            fused = tensors[f"c_attn.{kind}"]
            tensors[f"q_attn.{kind}"] = fused[..., :width]
            tensors[f"c_attn.{kind}"] = fused[..., width:]
    return tensors
