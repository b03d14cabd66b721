"""Graft cross-attention onto a causal language model that has none.

    config = EncoderDecoderConfig(encoder=BertConfig(), decoder=LlamaConfig(), graft={"every_n_layers": 2})

A forward hook applies a ``CrossAttention`` after every n-th decoder layer. The pretrained decoder keeps its class, its
state-dict keys and its own ``generate``. The new parameters are ``cross_attention.<layer>.*`` of the joint model.
"""

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from warmstart.model.bridge.cross_attention import CrossAttention, Shape
from warmstart.model.cache_names import CACHE_NAMES, cache_name
from warmstart.model.call_state import CallState

DEFAULTS: dict[str, Any] = {"every_n_layers": 1, "gate": "zero", "dropout": 0.0, "bias": False}
GATES = ("zero", "none")

# Modules that return hidden states, for types in which ``decoder_layers`` does not find the layers by its rule.
_LAYERS = {
    "xlm": "transformer.layer_norm2",  # a layer is spread over parallel lists and ends with this norm
    "reformer": "reformer.encoder",  # reversible layers run again in the backward pass; hook the stack instead
}
_HEAD_SIZE = 64  # for a decoder without attention heads (Mamba)


def graft_settings(given: dict[str, Any] | None) -> dict[str, Any]:
    """Fill in the defaults of ``EncoderDecoderConfig.graft`` and check the settings.

    Raises:
        ValueError: A key is unknown, or ``gate`` or ``every_n_layers`` has an invalid value.
    """
    settings = DEFAULTS | (given or {})
    unknown = settings.keys() - DEFAULTS.keys()
    if unknown:
        raise ValueError(f"graft has no setting {', '.join(sorted(unknown)[:10])}. Choose from {', '.join(DEFAULTS)}.")
    if settings["gate"] not in GATES:
        raise ValueError(f"graft: gate is {settings['gate']!r}. Choose one of {', '.join(GATES)}.")
    if int(settings["every_n_layers"]) < 1:
        raise ValueError(f"graft: every_n_layers is {settings['every_n_layers']}. Set it to 1 or more.")
    return settings


def graft(decoder: PreTrainedModel, settings: dict[str, Any], source_size: int, call: CallState) -> nn.ModuleDict:
    """Attach new cross-attention to ``decoder``, in place.

    Args:
        decoder: A causal language model.
        settings: All of ``DEFAULTS``, see ``graft_settings``.
        source_size: Hidden size of the states that cross-attention reads.
        call: The state that holds the source during a call.

    Returns:
        The new layers, by the index of the decoder layer that they follow.

    Raises:
        ValueError: The decoder's layers cannot be found, or there are fewer than ``every_n_layers``.
    """
    every = int(settings["every_n_layers"])
    layers = decoder_layers(decoder)
    grafted: dict[str, nn.Module] = {}
    for index, layer in enumerate(layers):
        if (index + 1) % every == 0:
            new = CrossAttention(
                shape_of(decoder.config, layer, index, source_size),
                index,
                call,
                gated=settings["gate"] == "zero",
                dropout=settings["dropout"],
                bias=settings["bias"],
            )
            layer.register_forward_hook(new.after_layer)
            grafted[str(index)] = new
    _generate_left_to_right(decoder)
    if not grafted:
        raise ValueError(
            f"every_n_layers={every}, but {type(decoder).__name__} has only {len(layers)} layers. Set a smaller number."
        )
    return nn.ModuleDict(grafted)


def decoder_layers(decoder: PreTrainedModel) -> list[nn.Module]:
    """Return the decoder's layers in order: the outermost module list with ``num_hidden_layers`` entries.

    Raises:
        ValueError: There is no such list.
    """
    exception = _LAYERS.get(decoder.config.model_type)
    if exception is not None:
        found = decoder.get_submodule(exception)
        return list(found) if isinstance(found, nn.ModuleList) else [found]
    lists = outermost_lists(decoder)
    depth = getattr(decoder.config, "num_hidden_layers", None)
    fitting = [layers for layers in lists if len(layers) == depth] or sorted(lists, key=len, reverse=True)
    if not fitting:
        raise ValueError(
            f"{type(decoder).__name__} has no list of layers to graft cross-attention onto. Choose another decoder."
        )
    return list(fitting[0])


def shape_of(config: PreTrainedConfig, layer: nn.Module, index: int, source_size: int) -> Shape:
    """Choose sizes, heads and norms of the cross-attention after ``layer``, from the decoder's config and modules."""
    hidden_size = config.hidden_size
    streams = "first" if hasattr(config, "altup_active_idx") else "inner"
    if "per_layer_config" in config.to_dict():
        config = config.per_layer_config[index]
    heads = _of_layer(getattr(config, "num_attention_heads", None), index) or max(1, hidden_size // _HEAD_SIZE)
    key_heads = _of_layer(getattr(config, "num_key_value_heads", None), index) or heads
    head_width = _of_layer(getattr(config, "head_dim", None), index) or max(1, hidden_size // heads)
    if heads % key_heads:
        key_heads = heads
    norms = [type(module).__name__ for module in layer.modules()]
    return Shape(
        hidden_size=hidden_size,
        source_size=source_size,
        heads=heads,
        key_heads=key_heads,
        head_width=head_width,
        norm="rms" if any("RMSNorm" in name for name in norms) else "layer",
        norm_epsilon=float(getattr(config, "rms_norm_eps", None) or getattr(config, "layer_norm_eps", None) or 1e-5),
        normed_heads=_has_normed_heads(layer, head_width),
        streams=streams,
        active=getattr(config, "altup_active_idx", 0),
    )


def kwargs_for_decoder(decoder: PreTrainedModel, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Rename ``cache`` to the decoder's own name of this argument, or drop it if the decoder takes no cache (GPT)."""
    taken = inspect.signature(decoder.forward).parameters
    named = cache_name(taken)
    past = kwargs.pop("cache", None)
    if past is not None:
        kwargs[named or CACHE_NAMES[0]] = past
    if named is None or "use_cache" not in taken:
        kwargs.pop("use_cache", None)
    return kwargs


def _generate_left_to_right(decoder: PreTrainedModel) -> None:
    """Make XLM and FlauBERT predict the next token in ``generate``; their own code appends a mask token instead."""
    if decoder.config.model_type in ("xlm", "flaubert"):
        setattr(decoder, "prepare_inputs_for_generation", _ids_and_mask)  # noqa: B010 - the type knows it as a method


def _ids_and_mask(input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any) -> dict[str, Any]:
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def initialize(module: CrossAttention) -> None:
    """Set the gate of new cross-attention to zero; transformers initializes its other parameters."""
    if module.gate is not None:
        with torch.no_grad():
            module.gate.zero_()


def outermost_lists(module: nn.Module) -> list[nn.ModuleList]:
    """Return the module lists that are not inside another one: the layers, and any other lists of the model."""
    found: list[nn.ModuleList] = []
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            found += [child] if len(child) else []
        else:
            found += outermost_lists(child)
    return found


def _of_layer(value: Any, index: int) -> int | None:
    if isinstance(value, (list, tuple)):
        value = value[index] if index < len(value) else None
    return value if isinstance(value, int) and value > 0 else None


def _has_normed_heads(layer: nn.Module, head_width: int) -> bool:
    for name, module in layer.named_modules():
        weight = getattr(module, "weight", None)
        if name.rsplit(".", 1)[-1] in ("q_norm", "query_layernorm") and isinstance(weight, torch.Tensor):
            return weight.shape == (head_width,)
    return False
