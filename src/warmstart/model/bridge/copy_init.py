"""Initialize new cross-attention from the same layer's self-attention, for native and grafted cross-attention.

T5Gemma, VAMBA and CEPE report gains from it where the hidden sizes match; docs/results.md has measurements.
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
    """Initialize all new cross-attention of a joint model from the decoder's self-attention, in place.

    Raises:
        ValueError: A layer's self-attention cannot be found, or its shapes differ.
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
    """Copy each layer's self-attention to the new parameters of its cross-attention, in place, where shapes agree.

    Args:
        decoder: A decoder with cross-attention of its own.
        new: Names of the parameters that no checkpoint contained. Pretrained cross-attention (BART) is not changed.

    Returns:
        Number of tensors that were copied.

    Raises:
        ValueError: A layer's self-attention cannot be found.
    """
    copied = 0
    for name, cross in cross_attention_modules(decoder).items():
        path = name.rpartition(".")[0]
        layer = decoder.get_submodule(path)
        parts = {name: cross} | {f"{path}.{norm}": getattr(layer, norm) for norm in _NORMS if hasattr(layer, norm)}
        untrained = {
            (part, key): tensor
            for part, module in parts.items()
            for key, tensor in module.named_parameters()
            if f"{part}.{key}" in new
        }
        if not untrained:
            continue
        found = [getattr(layer, n) for n in _SELF_ATTENTION_NAMES if isinstance(getattr(layer, n, None), nn.Module)]
        if not found:
            raise ValueError(
                f"bridge.init=copy: {type(layer).__name__} has no self-attention next to {name}. "
                "Set bridge.init=random."
            )
        source = {name: _as_cross_attention(found[0])}
        for part in parts.keys() - source.keys():
            source[part] = dict(getattr(layer, _NORMS[part.rpartition(".")[2]]).named_parameters())
        for (part, key), tensor in untrained.items():
            value = source[part].get(key)
            if value is not None and value.shape == tensor.shape:
                tensor.copy_(value)
                copied += 1
    return copied


def _as_cross_attention(attention: nn.Module) -> dict[str, Tensor]:
    """Return self-attention's tensors by the names of cross-attention; GPT-2 fuses query, key and value by columns."""
    tensors: dict[str, Tensor] = dict(attention.named_parameters())
    if "c_attn.weight" in tensors and "q_attn.weight" not in tensors:
        hidden_size = tensors["c_attn.weight"].shape[0]
        for kind in ("weight", "bias"):
            fused = tensors[f"c_attn.{kind}"]
            tensors[f"q_attn.{kind}"] = fused[..., :hidden_size]
            tensors[f"c_attn.{kind}"] = fused[..., hidden_size:]
    return tensors


@torch.no_grad()
def copy_into_grafted(cross: CrossAttention, layer: nn.Module) -> None:
    """Initialize one grafted cross-attention from its decoder layer's self-attention and pre-norm, in place.

    Raises:
        ValueError: The query, key, value and output matrices cannot be found, or their shapes differ.
    """
    source = _self_attention_matrices(layer, cross)
    if source is None:
        raise ValueError(
            f"bridge.init=copy: {type(layer).__name__} (layer {cross.index}) has no self-attention with query, key, "
            "value and output matrices that can be copied. Set bridge.init=random."
        )
    for name, value in source.items():
        getattr(cross, name).weight.copy_(value)
    for name in _PRE_NORMS:
        norm = getattr(layer, name, None)
        if isinstance(norm, nn.Module):
            _copy_norm(cross.norm, norm, cross.shape.hidden_size)
            break
    if cross.shape.normed_heads:
        for name, module in layer.named_modules():
            short = {"q_norm": "q_norm", "query_layernorm": "q_norm", "k_norm": "k_norm", "key_layernorm": "k_norm"}
            target = short.get(name.rsplit(".", 1)[-1])
            if target:
                _copy_norm(getattr(cross, target), module, cross.shape.head_width)


def _split_stacked(fused: Tensor, sizes: list[int]) -> tuple[Tensor, ...]:
    """Split a matrix that stacks query, key and value rows."""
    return tuple(fused.split(sizes))


def _split_four_blocks(fused: Tensor, sizes: list[int]) -> tuple[Tensor, ...]:
    """Split CodeGen's matrix: four blocks, each with a quarter of query, value and key, in this order."""
    query, value, key = fused.view(4, 3, sizes[0] // 4, -1).transpose(0, 1).flatten(1, 2).unbind()
    return query, key, value


# How ``qkv_proj`` is split, by class. MiniMax is absent: its linear attention has no such layout.
_FUSED = {
    "Phi3Attention": _split_stacked,
    "Phi4MultimodalAttention": _split_stacked,
    "CodeGenAttention": _split_four_blocks,
}


def _self_attention_matrices(layer: nn.Module, cross: CrossAttention) -> dict[str, Tensor] | None:
    shapes = {name: getattr(cross, name).weight.shape for name in ("q_proj", "k_proj", "v_proj", "o_proj")}
    for attention in layer.modules():
        held: dict[str, Any] = {n: child.weight for n, child in attention.named_children() if hasattr(child, "weight")}
        output = next((held[name] for name in _OUTPUTS if name in held), None)
        found: tuple[Tensor, ...] | None = None
        if {"q_proj", "k_proj", "v_proj"} <= held.keys():
            found = held["q_proj"], held["k_proj"], held["v_proj"]
        elif "query_key_value" in held and cross.shape.heads == cross.shape.key_heads:  # GPT-NeoX: fused per head
            fused = held["query_key_value"]
            if fused.shape[0] == 3 * shapes["q_proj"][0]:
                found = (
                    fused.view(cross.shape.heads, 3, cross.shape.head_width, -1).transpose(0, 1).flatten(1, 2).unbind()
                )
        elif type(attention).__name__ in _FUSED:
            sizes = [shapes[name][0] for name in ("q_proj", "k_proj", "v_proj")]
            if held["qkv_proj"].shape[0] == sum(sizes):
                found = _FUSED[type(attention).__name__](held["qkv_proj"], sizes)
        if found is not None and output is not None:
            matrices = dict(zip(shapes, (*found, output), strict=True))
            return matrices if all(matrices[name].shape == shape for name, shape in shapes.items()) else None
    return None


def _copy_norm(target: nn.Module, source: nn.Module, size: int) -> None:
    """Copy the scale of a norm over ``size`` elements, in place; norms of another size are skipped."""
    weight = next(source.parameters(), None)
    if weight is None or weight.shape != (size,):
        return
    if isinstance(source, nn.LayerNorm):
        if isinstance(target, nn.LayerNorm):
            target.load_state_dict(source.state_dict(), strict=False)
        return
    # The output for ones, not the weight: Gemma's RMSNorm multiplies by one plus its weight.
    target.weight.copy_(source(torch.ones(1, 1, size, dtype=weight.dtype, device=weight.device)).flatten())  # type: ignore[operator]
