"""The encoder half: which class serves a config, and how it is loaded without parts that never train.

T5 and its kin load as their text encoder, BART and its kin as the encoder inside the whole; BERT and its kin without
the pooler, which no summary needs, which gets no gradient, and which therefore stops DDP.
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

_NO_ENCODER_OF_ITS_OWN = {
    "fsmt": "its encoder is no model that could be loaded, saved or configured by itself",
}


def encoder_class(config: PreTrainedConfig) -> Any:
    """The class that encodes text for ``config``.

    Raises:
        ValueError: transformers has no base model of this type, or it reads something else than text.
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
    half = encoder_part(config)
    beside_text = [name for name in half.sub_configs if "vision" in name or "audio" in name]
    if beside_text or not isinstance(getattr(half, "hidden_size", None), int):
        raise ValueError(f"{config.model_type!r} cannot be an encoder here: it is no model of text alone.")
    return found


def encoder_part(config: PreTrainedConfig) -> PreTrainedConfig:
    """Return the config that holds the encoder's sizes: T5Gemma's has one for its encoder and one for its decoder."""
    inside = getattr(config, "encoder", None)
    return inside if isinstance(inside, PreTrainedConfig) else config


def states_width(config: PreTrainedConfig) -> int:
    """Return the size of the encoder's hidden states: of Reformer's two streams together, else ``hidden_size``."""
    size: int = encoder_part(config).hidden_size
    return 2 * size if config.model_type == "reformer" else size


def build_encoder(config: PreTrainedConfig) -> PreTrainedModel:
    """An untrained encoder (or an empty one inside a loading context)."""
    model_class = _class_to_build(config)
    kwargs: dict[str, Any] = {"add_pooling_layer": False} if _takes_pooling_flag(model_class) else {}
    # from_config goes through the attention-implementation checks that a plain constructor call skips.
    return _encoder_inside(from_config(model_class, config, **kwargs))


def load_encoder(
    path: str, config: PreTrainedConfig, *model_args: Any, **kwargs: Any
) -> tuple[PreTrainedModel, set[str]]:
    """Load the encoder of a checkpoint; also the names of parameters that the checkpoint did not hold."""
    model_class = _class_to_build(config)
    if _takes_pooling_flag(model_class) and not model_args:  # the first of them is that flag
        kwargs.setdefault("add_pooling_layer", False)
    model, info = load_pretrained(model_class, path, *model_args, config=config, **kwargs)
    inside = _encoder_inside(model)
    missing = set(info["missing_keys"])
    if inside is not model:
        prefix = next(name for name, module in model.named_modules() if module is inside) + "."
        missing = {name[len(prefix) :] for name in missing if name.startswith(prefix)}
    return drop_pooler(inside), missing


def drop_pooler(encoder: Any) -> Any:
    """Remove the pooler of an encoder object, in place: its gradient is always None."""
    if _takes_pooling_flag(type(encoder)) and isinstance(getattr(encoder, "pooler", None), nn.Module):
        encoder.pooler = None
        if hasattr(encoder, "pooler_activation"):
            encoder.pooler_activation = None
        if hasattr(encoder, "activation") and encoder.config.model_type == "big_bird":
            encoder.activation = None
    return encoder


@torch.no_grad()
def check_sees_both_ways(encoder: PreTrainedModel) -> None:
    """Refuse an encoder whose first token does not know the later ones, although its config asks for that.

    Raises:
        ValueError: ``is_causal=False`` is without effect in this type, which transformers does not say.
    """
    ids = torch.tensor([[5, 6, 7], [5, 6, 8]], device=encoder.device)
    was_training = encoder.training
    first, other = encoder.eval()(input_ids=ids)[0][:, 0]
    encoder.train(was_training)
    if torch.equal(first, other):
        raise ValueError(
            f"attention=bidirectional has no effect in {type(encoder).__name__}: its tokens see the earlier ones "
            "alone. Choose attention=own."
        )


def _class_to_build(config: PreTrainedConfig) -> Any:
    if encoder_part(config) is not config:
        config.is_encoder_decoder = False  # T5GemmaEncoderModel refuses the config of the whole
    return encoder_class(config)


def _takes_pooling_flag(model_class: type) -> bool:
    return "add_pooling_layer" in inspect.signature(model_class).parameters


def _encoder_inside(model: PreTrainedModel) -> PreTrainedModel:
    """BartModel -> its BartEncoder; anything that already is an encoder stays."""
    is_whole = any(isinstance(getattr(model, name, None), PreTrainedModel) for name in ("decoder", "text_decoder"))
    return model.get_encoder() if is_whole else model
