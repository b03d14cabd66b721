"""Choose the decoder class for a config, and its kind of cross-attention, before any weight is loaded.

A causal LM that takes ``encoder_hidden_states`` has cross-attention of its own. ``UNSOUND`` lists the types whose
cross-attention is wrong in transformers 5.24; like all other types, they get grafted cross-attention.
"""

import inspect
from typing import Any

import torch
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
    "whisper": "it transcribes speech",
    "xlnet": "it is a permutation language model and does not predict the next token",
    "cpmant": "it reads all tokens before the last in both directions",
    "gemma4_assistant": "it drafts tokens for another model",
    "gemma4_unified_assistant": "it drafts tokens for another model",
    "blt": "it reads bytes in patches, which need a second model",
    "git": "it describes images and reads any text as a caption",
}
NO_GRADIENT_CHECKPOINTING = {"roformer": "its checkpointed layers lose the encoder's states"}

_CROSS_ATTENTION_NAMES = ("crossattention", "cross_attention", "cross_attn", "encoder_attn")


def decoder_class(config: PreTrainedConfig) -> Any:
    """Return the causal LM class for ``config``.

    Raises:
        ValueError: There is no such class, or it cannot be a decoder; the message has the reason.
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
            f"{text.model_type!r}. Use a checkpoint of that type."
        )
    return found


def text_part(config: PreTrainedConfig) -> PreTrainedConfig:
    """Return the language model's config in a multimodal one if the causal LM class takes it; else ``config``."""
    text = config.get_text_config(decoder=True)
    if type(text) is type(config) or type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:  # for BART, a modified copy
        return config
    return text if _causal_lm(config).config_class is type(text) else config


def has_own_cross_attention(config: PreTrainedConfig) -> bool:
    """Return whether the type's causal LM has correct cross-attention; other types get it grafted."""
    if _causal_lm(config) is None or config.model_type in UNSOUND:
        return False
    return "encoder_hidden_states" in inspect.signature(_causal_lm(config).forward).parameters


def make_decoder(config: PreTrainedConfig, *, grafted: bool) -> None:
    """Set the flags that make a config a decoder's, in place.

    Args:
        config: The decoder's config.
        grafted: Cross-attention is grafted, so the decoder must not build its own.
    """
    config.is_decoder = True
    config.add_cross_attention = not grafted
    if hasattr(config, "causal"):  # the flag of XLM and FlauBERT
        config.causal = True
    if grafted:  # the config may be of an encoder-decoder checkpoint; the decoder's own generate must not expect one
        config.is_encoder_decoder = False


def check_cross_attention(decoder: PreTrainedModel) -> None:
    """Check that a decoder object has cross-attention, without which it would ignore the source.

    Raises:
        ValueError: No layer has a cross-attention module.
    """
    if not cross_attention_modules(decoder):
        raise ValueError(
            f"The decoder object ({type(decoder).__name__}) was built without cross-attention, so the encoder would "
            "have no effect. Build it from a config with is_decoder=True and add_cross_attention=True, or pass its "
            "checkpoint to from_encoder_decoder_pretrained."
        )


@torch.no_grad()
def check_causal(decoder: PreTrainedModel) -> None:
    """Check that a decoder object is causal: another last token changes no earlier logit.

    An object on the meta device, or one that cannot run where it is, is not checked. Modes and torch's random state
    stay as they are.

    Raises:
        ValueError: Earlier logits change.
    """
    taken = inspect.signature(decoder.forward).parameters
    if "input_ids" not in taken or any(parameter.is_meta for parameter in decoder.parameters()):
        return
    ids = torch.tensor([[5, 6, 7], [5, 6, 8]], device=decoder.device)
    ids %= decoder.config.get_text_config(decoder=True).vocab_size
    options = {"use_cache": False} if "use_cache" in taken else {}
    modes = [(module, module.training) for module in decoder.modules()]
    try:
        with torch.random.fork_rng([decoder.device] if decoder.device.type == "cuda" else []):
            logits_BTV = decoder.eval()(input_ids=ids, **options)[0].float()
    except RuntimeError:  # such as flash attention on a CPU
        return
    finally:
        for module, was_training in modes:
            module.training = was_training
    change_T = (logits_BTV[0] - logits_BTV[1]).abs().amax(dim=-1)
    rounding = 1e-3 if decoder.dtype in (torch.float32, torch.float64) else 0.05  # relative to the last token's change
    if change_T[:-1].max() > rounding * change_T[-1]:
        raise ValueError(
            f"The decoder object ({type(decoder).__name__}) lets tokens attend to later ones, which it could not do in "
            "generation. Build it from a config with is_decoder=True (XLM: causal=True), or pass its checkpoint to "
            "from_encoder_decoder_pretrained."
        )


def drop_own_cross_attention(decoder: PreTrainedModel) -> None:
    """Remove a decoder's own cross-attention, in place; it would be saved but not used.

    Cross-attention to images (Mllama) stays.
    """
    if "encoder_hidden_states" not in inspect.signature(decoder.forward).parameters:
        return
    for module in list(decoder.modules()):
        for name in [name for name, _ in module.named_children() if "cross" in name or name.startswith("encoder_attn")]:
            delattr(module, name)


def check_hidden_sizes(config: Any) -> None:
    """Check that ``cross_attention_hidden_size`` of the decoder, if set, equals the encoder's hidden size.

    Raises:
        ValueError: They differ.
    """
    expected = getattr(config.decoder, "cross_attention_hidden_size", None)
    hidden_size = states_width(config.encoder)
    if expected is not None and expected != hidden_size:
        raise ValueError(
            f"The decoder's cross_attention_hidden_size is {expected}, but the encoder's hidden size is {hidden_size}. "
            "Set cross_attention_hidden_size to the encoder's hidden size, or to None for a projection."
        )


def cross_attention_modules(decoder: nn.Module) -> dict[str, nn.Module]:
    """Return the cross-attention module of each decoder layer, by name."""
    return {
        name: module for name, module in decoder.named_modules() if name.rsplit(".", 1)[-1] in _CROSS_ATTENTION_NAMES
    }


def _causal_lm(config: PreTrainedConfig) -> Any:
    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        found: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
        return found[0] if isinstance(found, tuple) else found
    # transformers maps only the multimodal config (Emu3, Mllama) to the class of the language model in it.
    modules = {key.__module__.rpartition(".")[0]: key for key in MODEL_FOR_CAUSAL_LM_MAPPING}
    multimodal = modules.get(type(config).__module__.rpartition(".")[0])
    found = None if multimodal is None else MODEL_FOR_CAUSAL_LM_MAPPING[multimodal]
    return found if getattr(found, "config_class", None) is type(config) else None
