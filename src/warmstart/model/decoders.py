"""Which causal language models can be the decoder, and how: decided from the config, before a weight is loaded.

A causal LM that takes ``encoder_hidden_states`` has cross-attention of its own; where that computes something wrong
(transformers 5.23) the type is listed with what is wrong, and like every other type gets cross-attention grafted.
"""

import inspect
from typing import Any

from torch import nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedConfig, PreTrainedModel

from warmstart.model.encoders import states_width

UNSOUND = {
    "big_bird": "its decoder forgets earlier tokens when it generates with a cache",
    "megatron-bert": "its cross-attention fails when source and target differ in length",
    "gpt_bigcode": "its cross-attention fails",
}
REFUSED = {
    "prophetnet": (
        "its relative attention mixes up heads and positions in transformers 5.23 and 5.24, so its output changes with "
        "the length of the target"
    ),
    "musicgen": "its language model generates codes of audio",
    "musicgen_melody": "its language model generates codes of audio",
    "whisper": "it transcribes speech, whose states it expects in its own way",
    "xlnet": "it sees all tokens but those that a permutation hides, and was trained to predict a place, not the next",
    "cpmant": "it reads all tokens before the last in both directions",
    "gemma4_assistant": "it drafts tokens for another model",
    "gemma4_unified_assistant": "it drafts tokens for another model",
    "blt": "it reads bytes in patches that a second model cuts",
    "git": "it describes images and reads every text as their caption",
}
NO_GRADIENT_CHECKPOINTING = {"roformer": "its checkpointed layers lose the encoder's states"}

_CROSS_ATTENTION_NAMES = ("crossattention", "cross_attention", "cross_attn", "encoder_attn")


def decoder_class(config: PreTrainedConfig) -> Any:
    """The causal LM class for ``config``.

    Raises:
        ValueError: there is none, or it cannot be a decoder, with the reason.
    """
    kind = config.model_type
    if kind in REFUSED:
        raise ValueError(f"{kind!r} cannot be a decoder: {REFUSED[kind]}.")
    if _causal_lm(config) is None:
        raise ValueError(f"{kind!r} cannot be a decoder: transformers has no causal language model of this type.")
    found, text = _causal_lm(config), config.get_text_config(decoder=True)
    if type(text) is not type(config) and found.config_class is not type(text):
        raise ValueError(
            f"{kind!r} cannot be a decoder: {found.__name__} is a multimodal model around a language model of type "
            f"{text.model_type!r}. Name a checkpoint of that type."
        )
    return found


def text_part(config: PreTrainedConfig) -> PreTrainedConfig:
    """The language model's config inside a multimodal one, where the causal LM of the type is that language model."""
    text = config.get_text_config(decoder=True)
    if type(text) is type(config) or type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:  # BART's is a changed copy
        return config
    return text if _causal_lm(config).config_class is type(text) else config


def has_own_cross_attention(config: PreTrainedConfig) -> bool:
    """Whether the type's causal LM brings sound cross-attention; any other has it grafted."""
    if _causal_lm(config) is None or config.model_type in UNSOUND:
        return False
    return "encoder_hidden_states" in inspect.signature(_causal_lm(config).forward).parameters


def make_decoder(config: PreTrainedConfig, *, grafted: bool) -> None:
    """Set the flags that make the config's model causal, in place; cross-attention of its own only if not grafted."""
    config.is_decoder = True
    config.add_cross_attention = not grafted
    if hasattr(config, "causal"):  # XLM's and FlauBERT's name for it
        config.causal = True
    if grafted:  # ProphetNet's is one checkpoint of both; its own generate must not look for the other half
        config.is_encoder_decoder = False


def check_cross_attention(decoder: PreTrainedModel) -> None:
    """Refuse a decoder object that was built without cross-attention: it would never see the source.

    Raises:
        ValueError: no layer holds a cross-attention module.
    """
    if not cross_attention_modules(decoder):
        raise ValueError(
            f"The decoder object ({type(decoder).__name__}) was built without cross-attention, so the encoder would "
            "have no effect. Build it from a config with is_decoder=True and add_cross_attention=True, or name its "
            "checkpoint and let from_encoder_decoder_pretrained build it."
        )


def drop_own_cross_attention(decoder: PreTrainedModel) -> None:
    """Remove the cross-attention of a decoder that gets it grafted, in place: it would be saved and never train.

    A language model inside a multimodal one, which reads images through cross-attention (Mllama), keeps that.
    """
    if "encoder_hidden_states" not in inspect.signature(decoder.forward).parameters:
        return
    for module in list(decoder.modules()):
        for name in [name for name, _ in module.named_children() if "cross" in name or name.startswith("encoder_attn")]:
            delattr(module, name)


def check_widths(config: Any) -> None:
    """Refuse a joint config whose decoder expects another width of encoder states.

    Raises:
        ValueError: ``cross_attention_hidden_size`` is not the width of the encoder's states.
    """
    expected = getattr(config.decoder, "cross_attention_hidden_size", None)
    width = states_width(config.encoder)
    if expected is not None and expected != width:
        raise ValueError(
            f"The decoder's cross_attention_hidden_size is {expected} but the encoder's states are {width} wide; "
            "they have to be equal."
        )


def cross_attention_modules(decoder: nn.Module) -> dict[str, nn.Module]:
    """Outermost cross-attention module of each layer, by name."""
    return {
        name: module for name, module in decoder.named_modules() if name.rsplit(".", 1)[-1] in _CROSS_ATTENTION_NAMES
    }


def _causal_lm(config: PreTrainedConfig) -> Any:
    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        found: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
        return found[0] if isinstance(found, tuple) else found
    # The language model inside a multimodal one (Emu3, Mllama) is listed under the whole alone.
    modules = {key.__module__.rpartition(".")[0]: key for key in MODEL_FOR_CAUSAL_LM_MAPPING}
    whole = modules.get(type(config).__module__.rpartition(".")[0])
    found = None if whole is None else MODEL_FOR_CAUSAL_LM_MAPPING[whole]
    return found if getattr(found, "config_class", None) is type(config) else None
