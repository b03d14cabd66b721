"""Make the transformers config of an encoder or a decoder from the settings in conf/encoder or conf/decoder."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from transformers import AutoConfig, PreTrainedConfig

from warmstart.config.model import AUTO_TYPE, Attention, Scale, SubmodelSettings, Weights
from warmstart.errors import UserError, says_nothing_of_the_file
from warmstart.model.adapters import check_adapter
from warmstart.model.assets import resolve_path
from warmstart.model.configuration import refuse_kernels
from warmstart.model.decoders import decoder_class, has_own_cross_attention, make_decoder, text_part
from warmstart.model.encoders import encoder_class
from warmstart.model.no_encoder import NoEncoderConfig  # noqa: F401 - registers the type of encoder=none
from warmstart.model.padding import POSITIONS_AFTER_PAD
from warmstart.model.pretrained import check_trainable
from warmstart.model.selector import SelectorConfig  # noqa: F401 - registers the type of decoder=ext
from warmstart.model.tiny_sizes import tiny_sizes

Role = Literal["encoder", "decoder"]

# Types whose special ids must not be None.
_IDS_ARE_NUMBERS = {"modernbert-decoder", "cwm", "emu3_text_model", "mllama_text_model"}
_DROPOUT_NAMES = (
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout", "dropout_rate"),
    *("resid_pdrop", "embd_pdrop", "emb_pdrop", "attn_pdrop", "embedding_dropout", "mlp_dropout"),
    *("hidden_dropout", "resid_dropout", "residual_dropout", "embed_dropout", "activation_dropout"),
    *("lsh_attention_probs_dropout_prob", "local_attention_probs_dropout_prob"),
)
# Fields that the model reads although its config class does not declare them.
_UNDECLARED = {"deberta-v2": {"position_buckets", "norm_rel_ebd", "share_att_key"}}
# Types with relative positions, for which max_position_embeddings is no limit.
_UNBOUNDED = {"t5", "mt5", "umt5", "deberta-v2", "deberta", "longt5"}


def submodel_config(
    settings: SubmodelSettings, role: Role, vocab_size: int | None = None, pad_id: int | None = None
) -> PreTrainedConfig:
    """Read the config of a submodel from its checkpoint, or build one for random weights.

    Args:
        settings: The checkpoint, or the model type and ``architecture``. A ``model_type`` of ``auto`` takes both from
            the checkpoint.
        role: ``encoder`` or ``decoder``.
        vocab_size: For random weights: number of tokens in the tokenizer; None keeps the type's default.
        pad_id: For random weights: pad id of the tokenizer; None keeps the type's default.

    Returns:
        A config with the flags of its role set, such as the causal mask of a decoder.

    Raises:
        UserError: The type is unknown or unsupported in this role, or ``architecture`` has an unknown key.
    """
    config = (
        _config_of_checkpoint(settings, role)
        if settings.weights is Weights.pretrained
        else _config_of_type(settings, role, vocab_size, pad_id)
    )
    _check_role(config, settings, role)
    if role == "decoder":
        config = text_part(config)
        make_decoder(config, grafted=not has_own_cross_attention(config))
    else:
        config.is_decoder = config.add_cross_attention = False
        if settings.attention is Attention.bidirectional:
            config.is_causal = False
    if role == "decoder" and settings.attention is not Attention.own:
        raise UserError(
            f"decoder.attention={settings.attention.value}: a decoder must be causal. Set decoder.attention=own."
        )
    return config


def with_model_type(settings: SubmodelSettings, role: str) -> SubmodelSettings:
    """Return the settings with a ``model_type`` of ``auto`` replaced by that of the checkpoint.

    Raises:
        UserError: The checkpoint's config cannot be read.
    """
    if settings.model_type != AUTO_TYPE:
        return settings
    return replace(settings, model_type=_config_of_checkpoint(settings, role).model_type)


def maximum_positions(config: PreTrainedConfig) -> int | None:
    """Return the maximum length of a submodel's input in tokens; None if there is no limit."""
    positions = getattr(config, "max_position_embeddings", None)
    if config.model_type in _UNBOUNDED or not isinstance(positions, int) or positions <= 0:
        return None
    if config.model_type in POSITIONS_AFTER_PAD:
        positions -= (config.pad_token_id or 0) + 1
    return positions


def set_dropout(config: PreTrainedConfig, dropout: float | None) -> bool:
    """Set every dropout probability of a config and of the configs in it (T5Gemma), in place.

    Returns:
        Whether there is one to set; False if ``dropout`` is None.
    """
    if dropout is None:
        return False
    parts = [config, *(part for part in vars(config).values() if isinstance(part, PreTrainedConfig))]
    found = [
        (part, name)
        for part in parts
        for name in _DROPOUT_NAMES
        if isinstance(value := getattr(part, name, None), int | float) and not isinstance(value, bool)
    ]
    for part, name in found:
        setattr(part, name, dropout)
    return bool(found)


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its class name if there is no message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _config_of_checkpoint(settings: SubmodelSettings, role: str) -> PreTrainedConfig:
    path = resolve_path(settings.path)  # may convert a GGUF file; a full disk is not the file's error
    if path.startswith((".", "/")) and not Path(path).exists():  # transformers would take it for a hub id
        raise UserError(f"{role}={settings.name}: the folder {settings.path} does not exist. Correct {role}.path.")
    if Path(path).is_file():
        raise UserError(
            f"{role}={settings.name}: {settings.path} is a file. Set {role}.path to a hub id, to a folder with a "
            "checkpoint, or to a .gguf file."
        )
    try:
        check_adapter(path, {"revision": settings.revision})
        config: PreTrainedConfig = AutoConfig.from_pretrained(path, revision=settings.revision, trust_remote_code=False)
        refuse_kernels(config)
    except Exception as error:  # a corrupt config.json raises many types of errors
        if says_nothing_of_the_file(error) and not isinstance(error, ImportError):
            raise
        raise UserError(
            f"{role}={settings.name}: no model config can be read from {settings.path}: {first_line(error)}"
        ) from error
    return config


def _config_of_type(
    settings: SubmodelSettings, role: Role, vocab_size: int | None, pad_id: int | None
) -> PreTrainedConfig:
    checkpoint = _config_of_checkpoint(settings, role) if settings.model_type == AUTO_TYPE else None
    if checkpoint is not None:
        settings = replace(settings, model_type=checkpoint.model_type)
    try:
        config = AutoConfig.for_model(settings.model_type) if checkpoint is None else checkpoint
    except ValueError:
        raise UserError(
            f"{role}.model_type={settings.model_type} is not a model type of the installed transformers. Correct "
            "it, or upgrade transformers."
        ) from None
    _check_role(config, settings, role)
    values = dict(settings.architecture)
    undeclared = _UNDECLARED.get(settings.model_type, set())
    unknown = [name for name in values if not hasattr(config, name) and name not in undeclared]
    if unknown:
        raise UserError(
            f"{role}.architecture: a {settings.model_type} config has no {', '.join(unknown[:10])}. "
            "Correct or remove it."
        )
    if settings.scale is Scale.tiny:
        config = text_part(config) if role == "decoder" else config
        config = AutoConfig.for_model(config.model_type, **_native(config, values))  # lists may have a value per layer
        values |= tiny_sizes(config, config.vocab_size if vocab_size is None else vocab_size)
    if vocab_size is not None:
        values["vocab_size"] = vocab_size
        names = ("bos_token_id", "eos_token_id", "pad_token_id", "cls_token_id", "sep_token_id")
        ids = {name: values.get(name, getattr(config, name, None)) for name in names}
        # Default ids may lie outside a smaller vocabulary; the tokenizers set those that are used.
        absent = 0 if config.model_type in _IDS_ARE_NUMBERS else None
        values |= {name: absent for name, value in ids.items() if isinstance(value, int) and value >= vocab_size}
        if isinstance(ids["pad_token_id"], int):  # the embedding of this id gets no gradient
            if pad_id is not None:
                values["pad_token_id"] = pad_id
            elif ids["pad_token_id"] >= vocab_size:
                values["pad_token_id"] = 0
    mapped = _native(config, values)
    if checkpoint is not None and settings.scale is Scale.full:
        # Without its dtype: a named type is built in float32, too.
        same: PreTrainedConfig = type(checkpoint).from_dict(checkpoint.to_dict() | {"dtype": None} | mapped)
        return same
    return AutoConfig.for_model(config.model_type, **mapped)


def _native(config: PreTrainedConfig, values: dict[str, Any]) -> dict[str, Any]:
    """Return the values under the names of the type: ``attribute_map`` maps common names (hidden_size to n_embd)."""
    return {type(config).attribute_map.get(name, name): value for name, value in values.items()}


def _check_role(config: PreTrainedConfig, settings: SubmodelSettings, role: Role) -> None:
    try:
        (encoder_class if role == "encoder" else decoder_class)(config)
        check_trainable(config)
    except ValueError as error:
        raise UserError(f"{role}={settings.name}: {error}") from None
