"""Begin new cross-attention as a copy of the same layer's self-attention, native or grafted.

Nobody has published the comparison at BERT scale on summaries; T5Gemma, VAMBA and CEPE report gains from copying where
the widths match (docs/results.md has our own figures).
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from warmstart.model.bridge.cross_attention import CrossAttention
from warmstart.model.bridge.grafting import decoder_layers
from warmstart.model.decoders import cross_attention_modules

_SELF_ATTENTION_NAMES = ("attention", "attn", "self_attn")
_OUTPUTS = ("o_proj", "out_proj", "dense", "c_proj", "wo", "Wo")
_PRE_NORMS = (
    *("input_layernorm", "ln_1", "ln1", "self_attn_layer_norm"),
    *("attention_norm", "attn_norm", "norm1", "operator_norm"),
)
_NORMS = {"ln_cross_attn": "ln_1", "encoder_attn_layer_norm": "self_attn_layer_norm"}


def copy_cross_attention(model: Any) -> None:
    """Begin all new cross-attention of a joint model as its decoder's self-attention, in place.

    Raises:
        ValueError: a layer's self-attention cannot be found or does not fit.
    """
    if model.config.graft is None:
        new = {name.removeprefix("decoder.") for name in model.new_parameter_names() if name.startswith("decoder.")}
        copy_self_attention(model.decoder, new)
        return
    layers = decoder_layers(model.decoder)
    for cross in model.cross_attention.values():
        copy_into_grafted(cross, layers[cross.index])


@torch.no_grad()
def copy_self_attention(decoder: PreTrainedModel, new: set[str]) -> int:
    """Copy each layer's self-attention into its cross-attention's ``new`` parameters, in place, where shapes agree.

    What a checkpoint gave stays: BART's decoder brings pretrained cross-attention, and so does one warm-started before.

    Returns:
        How many tensors were copied.

    Raises:
        ValueError: a layer's self-attention cannot be found.
    """
    copied = 0
    for name, cross in cross_attention_modules(decoder).items():
        path = name.rpartition(".")[0]
        layer = decoder.get_submodule(path)
        parts = {name: cross} | {f"{path}.{norm}": getattr(layer, norm) for norm in _NORMS if hasattr(layer, norm)}
        begun = {
            (part, key): tensor
            for part, module in parts.items()
            for key, tensor in module.named_parameters()
            if f"{part}.{key}" in new
        }
        if not begun:
            continue
        found = [getattr(layer, n) for n in _SELF_ATTENTION_NAMES if isinstance(getattr(layer, n, None), nn.Module)]
        if not found:
            raise ValueError(
                f"bridge.init=copy: no self-attention beside {name} in {type(layer).__name__}. Set bridge.init=random."
            )
        source = {name: _as_cross_attention(found[0])}
        for part in parts.keys() - source.keys():
            source[part] = dict(getattr(layer, _NORMS[part.rpartition(".")[2]]).named_parameters())
        for (part, key), tensor in begun.items():
            value = source[part].get(key)
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


@torch.no_grad()
def copy_into_grafted(cross: CrossAttention, layer: nn.Module) -> None:
    """Begin one grafted cross-attention as its decoder layer's self-attention and the norm before that, in place.

    Raises:
        ValueError: the layer's query, key, value and output matrices cannot be told apart, or differ in shape.
    """
    source = _self_attention_matrices(layer, cross)
    if source is None:
        raise ValueError(
            f"bridge.init=copy: {type(layer).__name__} (layer {cross.index}) has no self-attention "
            "whose query, key, value and output matrices could be copied. Set bridge.init=random."
        )
    for name, value in source.items():
        getattr(cross, name).weight.copy_(value)
    for name in _PRE_NORMS:
        norm = getattr(layer, name, None)
        if isinstance(norm, nn.Module):
            _copy_norm(cross.norm, norm, cross.shape.width)
            break
    if cross.shape.normed_heads:
        for name, module in layer.named_modules():
            short = {"q_norm": "q_norm", "query_layernorm": "q_norm", "k_norm": "k_norm", "key_layernorm": "k_norm"}
            mine = short.get(name.rsplit(".", 1)[-1])
            if mine:
                _copy_norm(getattr(cross, mine), module, cross.shape.head_width)


def _stacked(fused: Tensor, rows: list[int]) -> tuple[Tensor, ...]:
    """Split a matrix that holds query, key and value one below the other."""
    return tuple(fused.split(rows))


def _in_four_blocks(fused: Tensor, rows: list[int]) -> tuple[Tensor, ...]:
    """Each a quarter of query, value and key, in this order: CodeGen was trained on four devices."""
    query, value, key = fused.view(4, 3, rows[0] // 4, -1).transpose(0, 1).flatten(1, 2).unbind()
    return query, key, value


# How a matrix ``qkv_proj`` is taken apart; MiniMax's, of an attention of another kind, is in no such order.
_FUSED = {"Phi3Attention": _stacked, "Phi4MultimodalAttention": _stacked, "CodeGenAttention": _in_four_blocks}


def _self_attention_matrices(layer: nn.Module, cross: CrossAttention) -> dict[str, Tensor] | None:
    shapes = {name: getattr(cross, name).weight.shape for name in ("q_proj", "k_proj", "v_proj", "o_proj")}
    for attention in layer.modules():
        held: dict[str, Any] = {n: child.weight for n, child in attention.named_children() if hasattr(child, "weight")}
        output = next((held[name] for name in _OUTPUTS if name in held), None)
        found: tuple[Tensor, ...] | None = None
        if {"q_proj", "k_proj", "v_proj"} <= held.keys():
            found = held["q_proj"], held["k_proj"], held["v_proj"]
        elif "query_key_value" in held and cross.shape.heads == cross.shape.key_heads:  # GPT-NeoX: head by head
            fused = held["query_key_value"]
            if fused.shape[0] == 3 * shapes["q_proj"][0]:
                found = (
                    fused.view(cross.shape.heads, 3, cross.shape.head_width, -1).transpose(0, 1).flatten(1, 2).unbind()
                )
        elif type(attention).__name__ in _FUSED:
            rows = [shapes[name][0] for name in ("q_proj", "k_proj", "v_proj")]
            if held["qkv_proj"].shape[0] == sum(rows):
                found = _FUSED[type(attention).__name__](held["qkv_proj"], rows)
        if found is not None and output is not None:
            matrices = dict(zip(shapes, (*found, output), strict=True))
            return matrices if all(matrices[name].shape == shape for name, shape in shapes.items()) else None
    return None


def _copy_norm(mine: nn.Module, theirs: nn.Module, width: int) -> None:
    """By what it does and not by its weights: Gemma's RMSNorm multiplies by one plus its weight."""
    weight = next(theirs.parameters(), None)
    if weight is None or weight.shape != (width,):
        return
    if isinstance(theirs, nn.LayerNorm):
        if isinstance(mine, nn.LayerNorm):
            mine.load_state_dict(theirs.state_dict(), strict=False)
        return
    mine.weight.copy_(theirs(torch.ones(1, 1, width, dtype=weight.dtype, device=weight.device)).flatten())  # type: ignore[operator]
