"""Choose the encoder class for a config, and build, load and call the encoder.

T5-like checkpoints load as their text encoder, BART-like ones as the encoder inside the complete model. BERT-like ones
load without the pooler: it gets no gradient, and DDP fails on parameters without one.
"""

import inspect
from typing import Any

import torch
from torch import nn
from transformers import (
    MODEL_FOR_TEXT_ENCODING_MAPPING,
    MODEL_MAPPING,
    PreTrainedConfig,
    PreTrainedModel,
)

from warmstart.compat.transformers import from_config
from warmstart.model.pretrained import load_pretrained
from warmstart.model.segments import segments_of_source

_NO_ENCODER_OF_ITS_OWN = {
    "fsmt": "its encoder cannot be loaded, saved or configured by itself",
}


def encoder_class(config: PreTrainedConfig) -> Any:
    """Return the class that encodes text for ``config``.

    Raises:
        ValueError: transformers has no base model of this type, or the model does not read text only.
    """
    if config.model_type in _NO_ENCODER_OF_ITS_OWN:
        raise ValueError(f"{config.model_type!r} cannot be an encoder: {_NO_ENCODER_OF_ITS_OWN[config.model_type]}.")
    found: Any
    if type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING:
        found = MODEL_FOR_TEXT_ENCODING_MAPPING[type(config)]
    elif type(config) in MODEL_MAPPING:
        found = MODEL_MAPPING[type(config)]
    else:
        raise ValueError(f"{config.model_type!r} cannot be an encoder: transformers has no base model of this type.")
    found = found[0] if isinstance(found, tuple) else found
    if found.main_input_name != "input_ids":
        raise ValueError(f"{config.model_type!r} cannot be an encoder: it reads {found.main_input_name}, not text.")
    part = encoder_part(config)
    other_inputs = [name for name in part.sub_configs if "vision" in name or "audio" in name]
    if other_inputs or not isinstance(getattr(part, "hidden_size", None), int):
        raise ValueError(f"{config.model_type!r} cannot be an encoder: it is not a text-only model.")
    return found


def encoder_part(config: PreTrainedConfig) -> PreTrainedConfig:
    """Return the config with the encoder's sizes: in T5Gemma's, a config of its own; else ``config`` itself."""
    inside = getattr(config, "encoder", None)
    return inside if isinstance(inside, PreTrainedConfig) else config


def states_width(config: PreTrainedConfig) -> int:
    """Return the size of the encoder's hidden states: twice ``hidden_size`` for Reformer, which has two streams."""
    size: int = encoder_part(config).hidden_size
    return 2 * size if config.model_type == "reformer" else size


def build_encoder(config: PreTrainedConfig) -> PreTrainedModel:
    """Build an untrained encoder; within transformers' loading context, one without weights."""
    model_class = _class_to_build(config)
    kwargs: dict[str, Any] = {"add_pooling_layer": False} if _takes_pooling_flag(model_class) else {}
    # A constructor call would skip the checks of the attention implementation.
    return _encoder_inside(from_config(model_class, config, **kwargs))


def load_encoder(
    path: str, config: PreTrainedConfig, *model_args: Any, **kwargs: Any
) -> tuple[PreTrainedModel, set[str]]:
    """Load the encoder of a checkpoint.

    Returns:
        The encoder, and the names of the parameters that the checkpoint did not contain.
    """
    model_class = _class_to_build(config)
    if _takes_pooling_flag(model_class) and not model_args:  # the first of model_args is this flag
        kwargs.setdefault("add_pooling_layer", False)
    model, info = load_pretrained(model_class, path, *model_args, config=config, **kwargs)
    inside = _encoder_inside(model)
    missing = set(info["missing_keys"])
    if inside is not model:
        prefix = next(name for name, module in model.named_modules() if module is inside) + "."
        missing = {name[len(prefix) :] for name in missing if name.startswith(prefix)}
    return drop_pooler(inside), missing


def complete_inputs(encoder: PreTrainedModel, inputs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call of ``encoder``, without those that are None.

    The KV cache is switched off. Marked sentences get segment ids (``warmstart.model.segments``). Longformer and LED
    get global attention on the first token of each source, without which their global attention would never train.
    """
    inputs = {name: value for name, value in inputs.items() if value is not None}
    inputs |= segments_of_source(encoder, inputs)
    if "use_cache" in inspect.signature(encoder.forward).parameters:
        inputs["use_cache"] = False  # Switch Transformers' encoder rejects a cache
    if encoder.config.model_type in ("longformer", "led") and "global_attention_mask" not in inputs:
        source = inputs["input_ids"] if "input_ids" in inputs else inputs["inputs_embeds"]
        mask = inputs.get("attention_mask")
        if mask is None:
            mask = torch.ones(source.shape[:2], device=source.device)
        seen_BS = (mask != 0).long()
        first_B1 = seen_BS.argmax(dim=1, keepdim=True)
        inputs["global_attention_mask"] = torch.zeros_like(seen_BS).scatter_(1, first_B1, 1)
    return inputs


def drop_pooler(encoder: Any) -> Any:
    """Remove the pooler of ``encoder``, in place: it never gets a gradient."""
    if _takes_pooling_flag(type(encoder)) and isinstance(getattr(encoder, "pooler", None), nn.Module):
        encoder.pooler = None
        if hasattr(encoder, "pooler_activation"):
            encoder.pooler_activation = None
        if hasattr(encoder, "activation") and encoder.config.model_type == "big_bird":
            encoder.activation = None
    return encoder


def check_encoder(encoder: PreTrainedModel) -> None:
    """Check that an encoder object has no LM head and was not built as a decoder.

    Raises:
        ValueError: It has one, or its config says ``is_decoder``, which its layers read when they were built.
    """
    name = type(encoder).__name__
    if encoder.get_output_embeddings() is not None:
        raise ValueError(f"The encoder {name} has an LM head. Use a model without one.")
    if getattr(encoder.config, "is_decoder", False):
        raise ValueError(
            f"The encoder object ({name}) was built with is_decoder=True, so its tokens would see only earlier ones. "
            "Build it from a config with is_decoder=False, or pass its checkpoint to from_encoder_decoder_pretrained."
        )


@torch.no_grad()
def check_sees_both_ways(encoder: PreTrainedModel) -> None:
    """Check that ``is_causal=False`` takes effect: the first token attends to later ones.

    Raises:
        ValueError: It has no effect in this model type; transformers accepts it silently.
    """
    ids = torch.tensor([[5, 6, 7], [5, 6, 8]], device=encoder.device)
    was_training = encoder.training
    first, other = encoder.eval()(input_ids=ids)[0][:, 0]
    encoder.train(was_training)
    if torch.equal(first, other):
        raise ValueError(
            f"attention=bidirectional has no effect in {type(encoder).__name__}: its tokens see only earlier tokens. "
            "Set attention=own."
        )


def _class_to_build(config: PreTrainedConfig) -> Any:
    if encoder_part(config) is not config:
        config.is_encoder_decoder = False  # T5GemmaEncoderModel rejects the config of the complete model
    return encoder_class(config)


def _takes_pooling_flag(model_class: type) -> bool:
    return "add_pooling_layer" in inspect.signature(model_class).parameters


def _encoder_inside(model: PreTrainedModel) -> PreTrainedModel:
    """Return the encoder inside a complete model (BartModel); an encoder is returned as it is."""
    has_decoder = any(isinstance(getattr(model, name, None), PreTrainedModel) for name in ("decoder", "text_decoder"))
    return model.get_encoder() if has_decoder else model
