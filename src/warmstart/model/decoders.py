"""Which causal language models can be the decoder as they are: decided from the config, before a weight is loaded.

A decoder needs cross-attention of its own: its causal LM takes ``encoder_hidden_states``. Types where that exists but
computes something wrong are listed with what is wrong (transformers 5.23).
"""

import inspect
from typing import Any

from torch import nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedConfig, PreTrainedModel

UNSOUND = {
    "big_bird": "its decoder forgets earlier tokens when it generates with a cache",
    "megatron-bert": "its cross-attention fails when source and target differ in length",
    "prophetnet": "its output changes when it generates with a cache",
    "gpt_bigcode": "its cross-attention fails",
    "musicgen": "its language model cannot be built from the whole config",
    "musicgen_melody": "its language model cannot be built from the whole config",
}
NO_GRADIENT_CHECKPOINTING = {"roformer": "its checkpointed layers lose the encoder's states"}

_CROSS_ATTENTION_NAMES = ("crossattention", "cross_attention", "cross_attn", "encoder_attn")


def decoder_class(config: PreTrainedConfig) -> Any:
    """The causal LM class for ``config``.

    Raises:
        ValueError: there is none, or it has no cross-attention of its own, or that is known to be unsound.
    """
    kind = config.model_type
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ValueError(f"{kind!r} cannot be a decoder: transformers has no causal language model of this type.")
    model_class: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    if isinstance(model_class, tuple):
        model_class = model_class[0]
    if "encoder_hidden_states" not in inspect.signature(model_class.forward).parameters:
        raise ValueError(
            f"{kind!r} cannot be a decoder yet: {model_class.__name__} has no cross-attention of its own. "
            "Choose one that has, such as bert, roberta, electra, bert-generation or gpt2."
        )
    if kind in UNSOUND:
        raise ValueError(f"{kind!r} cannot be a decoder: {UNSOUND[kind]} in this release of transformers.")
    return model_class


def check_cross_attention(decoder: PreTrainedModel) -> None:
    """Refuse a decoder object that was built without cross-attention: it would never see the source.

    Raises:
        ValueError: no layer holds a cross-attention module.
    """
    decoder_class(decoder.config)
    if not cross_attention_modules(decoder):
        raise ValueError(
            f"The decoder object ({type(decoder).__name__}) was built without cross-attention, so the encoder would "
            "have no effect. Build it from a config with is_decoder=True and add_cross_attention=True, or name its "
            "checkpoint and let from_encoder_decoder_pretrained build it."
        )


def check_widths(config: Any) -> None:
    """Refuse a joint config whose decoder expects another width of encoder states.

    Raises:
        ValueError: ``cross_attention_hidden_size`` is not the encoder's ``hidden_size``.
    """
    expected = getattr(config.decoder, "cross_attention_hidden_size", None)
    if expected is not None and expected != config.encoder.hidden_size:
        raise ValueError(
            f"The decoder's cross_attention_hidden_size is {expected} but the encoder's hidden_size is "
            f"{config.encoder.hidden_size}; they have to be equal."
        )


def cross_attention_modules(decoder: nn.Module) -> dict[str, nn.Module]:
    """Outermost cross-attention module of each layer, by name."""
    return {
        name: module for name, module in decoder.named_modules() if name.rsplit(".", 1)[-1] in _CROSS_ATTENTION_NAMES
    }
