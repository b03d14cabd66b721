"""Load an encoder and a decoder from two checkpoints, and record the parameters that these did not contain.

Both configs are read and checked before any weight is loaded.
"""

from copy import deepcopy
from dataclasses import dataclass, fields
from typing import Any

from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from warmstart.model.adapters import check_adapter, hub_arguments
from warmstart.model.configuration import SPECIAL_IDS, EncoderDecoderConfig, refuse_kernels
from warmstart.model.decoders import decoder_class, has_own_cross_attention, make_decoder, text_part
from warmstart.model.encoders import encoder_class, load_encoder
from warmstart.model.keywords import unknown_keyword
from warmstart.model.pretrained import check_trainable, load_pretrained
from warmstart.model.special_ids import known_special_ids

# A sequence-to-sequence checkpoint (BART, Pegasus, Marian) stores one embedding matrix for encoder and decoder.
SHARED_EMBEDDINGS = {r"^model\.shared\.": "model.decoder.embed_tokens.", r"^shared\.": "decoder.embed_tokens."}
SHARED_ARGUMENTS = ("dtype", "torch_dtype", "attn_implementation", "revision", "cache_dir", "local_files_only", "token")


@dataclass
class Submodels:
    """A loaded encoder and decoder, with the names of the parameters that their checkpoints did not contain."""

    encoder: PreTrainedModel
    decoder: PreTrainedModel
    encoder_missing: set[str]
    decoder_missing: set[str]
    decoder_is_callers: bool = False
    """Whether the decoder is an object of the caller, which may have been built with any config."""

    def mark_untrained(self, role: str) -> None:
        """Record every parameter of a submodel as missing, because it was built from its config.

        Args:
            role: ``encoder`` or ``decoder``.
        """
        submodel: PreTrainedModel = getattr(self, role)
        if role == "decoder":
            self.decoder_is_callers = False
        setattr(self, f"{role}_missing", {name for name, _ in submodel.named_parameters(remove_duplicate=False)})


def load_submodels(
    encoder_path: str | None, decoder_path: str | None, kwargs: dict[str, Any], model_args: tuple[Any, ...] = ()
) -> tuple[Submodels, dict[str, Any]]:
    """Load encoder and decoder.

    Args:
        encoder_path: Hub id or folder of the encoder; None if ``kwargs`` contains ``encoder_model``.
        decoder_path: Hub id or folder of the decoder; None if ``kwargs`` contains ``decoder_model``.
        kwargs: See ``EncoderDecoderModel.from_encoder_decoder_pretrained``.
        model_args: Passed to the encoder's ``from_pretrained``.

    Returns:
        Both submodels, and the fields of the joint config.

    Raises:
        ValueError: A submodel is missing or unsupported.
        TypeError: An argument is unknown to both submodels and to the joint config.
    """
    joint = dict(kwargs)
    both = {name: joint.pop(name) for name in SHARED_ARGUMENTS if name in joint}
    both.setdefault("trust_remote_code", False)
    encoder_kwargs = both | _take(joint, "encoder_")
    decoder_kwargs = both | _take(joint, "decoder_")
    if not joint.get("trust_remote_code"):
        joint.pop("trust_remote_code", None)  # remote code is never run
    _refuse_unknown_fields(joint)

    encoder, decoder = encoder_kwargs.pop("model", None), decoder_kwargs.pop("model", None)
    decoder_is_callers = decoder is not None
    for role, model, path in (("encoder", encoder, encoder_path), ("decoder", decoder, decoder_path)):
        if model is None and path is None:
            raise ValueError(f"There is no {role}. Set {role}_pretrained_model_name_or_path or {role}_model.")
    encoder_missing: set[str] = set()
    decoder_missing: set[str] = set()
    if encoder is None:
        encoder_config, encoder_kwargs = _config_of(encoder_path, encoder_kwargs)
        encoder_config.is_decoder = False
        encoder_config.add_cross_attention = False
        encoder_class(encoder_config)
    if decoder is None:
        decoder_config, decoder_kwargs = _config_of(decoder_path, decoder_kwargs)
        model_class = decoder_class(decoder_config)
        if decoder_config.is_encoder_decoder:
            decoder_kwargs["key_mapping"] = SHARED_EMBEDDINGS
        decoder_config = text_part(decoder_config)
        grafted = joint.get("graft") is not None or not has_own_cross_attention(decoder_config)
        make_decoder(decoder_config, grafted=grafted)
    if encoder is None:
        encoder, encoder_missing = load_encoder(str(encoder_path), encoder_config, *model_args, **encoder_kwargs)
    if decoder is None:
        decoder, info = load_pretrained(model_class, str(decoder_path), config=decoder_config, **decoder_kwargs)
        decoder_missing = _without_tied_output(decoder, set(info["missing_keys"]))
    if not joint.keys() >= set(SPECIAL_IDS):
        gguf = "gguf_file" in decoder_kwargs
        known = known_special_ids(None if gguf else decoder_path, decoder.config, decoder_kwargs)
        joint = known | joint
    return Submodels(encoder, decoder, encoder_missing, decoder_missing, decoder_is_callers), joint


def _refuse_unknown_fields(joint: dict[str, Any]) -> None:
    known = {field.name for field in fields(EncoderDecoderConfig)} | {"output_attentions"}
    for name in sorted(joint.keys() - known):
        message = unknown_keyword(name, "the config of the joint model", known | set(SHARED_ARGUMENTS))
        raise TypeError(f"{message} Use encoder_{name} or decoder_{name} for an argument of a submodel.")


def _without_tied_output(decoder: PreTrainedModel, missing: set[str]) -> set[str]:
    """Tie an LM head that should share the embeddings' weights but does not (BigBird-Pegasus), in place.

    Returns:
        ``missing`` without the tied LM head.
    """
    embeddings: Any = getattr(decoder.get_input_embeddings(), "weight", None)
    output: Any = getattr(decoder.get_output_embeddings(), "weight", None)
    if not getattr(decoder.config, "tie_word_embeddings", False) or embeddings is None or output is None:
        return missing
    of_embeddings, of_output = (
        {name for name, one in decoder.named_parameters(remove_duplicate=False) if one is weight}
        for weight in (embeddings, output)
    )
    if of_embeddings & missing or not of_output & missing or embeddings.shape != output.shape:
        return missing
    output.data.copy_(embeddings.data)
    return missing - of_output


def _take(kwargs: dict[str, Any], prefix: str) -> dict[str, Any]:
    # decoder_start_token_id is a field of the joint config that happens to begin with the prefix.
    names = [name for name in kwargs if name.startswith(prefix) and name != "decoder_start_token_id"]
    return {name.removeprefix(prefix): kwargs.pop(name) for name in names}


def _config_of(path: str | None, kwargs: dict[str, Any]) -> tuple[PreTrainedConfig, dict[str, Any]]:
    """Return a copy of ``kwargs["config"]``, or the checkpoint's config changed by ``kwargs``; and what is left."""
    check_adapter(path, hub_arguments(kwargs))
    config = kwargs.pop("config", None)
    if config is not None:
        check_trainable(config)
        return deepcopy(config), kwargs  # the flags of its role are set in it
    # These are not config fields, or from_pretrained needs them as well.
    kept = {name: value for name, value in kwargs.items() if name in SHARED_ARGUMENTS or name == "trust_remote_code"}
    hub = {name: value for name, value in kept.items() if name not in ("dtype", "torch_dtype", "attn_implementation")}
    rest = {name: value for name, value in kwargs.items() if name not in kept}
    config, unused = AutoConfig.from_pretrained(str(path), return_unused_kwargs=True, **hub, **rest)
    refuse_kernels(config)
    check_trainable(config)
    return config, kept | {name: value for name, value in unused.items() if name not in kept}
