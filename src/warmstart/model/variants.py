"""Which class a joint model has: with cross-attention, without an encoder, or with a selector of sentences."""

from typing import Any

from warmstart.config.model import NO_ENCODER, SELECTOR, SubmodelSettings
from warmstart.model.decoder_only import DecoderOnlyModel
from warmstart.model.extractive import ExtractiveModel
from warmstart.model.modeling import EncoderDecoderModel


def model_class(config: dict[str, Any]) -> type[EncoderDecoderModel]:
    """Return the class of the model that a config describes.

    Args:
        config: A config as plain values, as in ``config.json`` or in a checkpoint.
    """
    by_type = {one.config_class.model_type: one for one in (DecoderOnlyModel, ExtractiveModel)}
    return by_type.get(config.get("model_type", ""), EncoderDecoderModel)


def joint_class(encoder: SubmodelSettings, decoder: SubmodelSettings) -> type[EncoderDecoderModel]:
    """Return the class of the model that joins an encoder and a decoder."""
    if encoder.model_type == NO_ENCODER:
        return DecoderOnlyModel
    return ExtractiveModel if decoder.model_type == SELECTOR else EncoderDecoderModel
