"""The config of an encoder or a decoder, from what a researcher chose in conf/encoder or conf/decoder."""

from typing import Any, Literal

from transformers import AutoConfig, PreTrainedConfig

from warmstart.config.model import Attention, HalfSettings, Scale, Weights
from warmstart.errors import UserError, says_nothing_of_the_file
from warmstart.model.adapters import check_adapter
from warmstart.model.assets import resolve_path
from warmstart.model.configuration import refuse_kernels
from warmstart.model.decoders import decoder_class, has_own_cross_attention, make_decoder, text_part
from warmstart.model.encoders import encoder_class
from warmstart.model.padding import POSITIONS_BEHIND_PAD
from warmstart.model.pretrained import check_trainable

Role = Literal["encoder", "decoder"]

_TINY_SUBMODEL = {"layers": 2, "attention_heads": 2, "ffn_dim": 64}
_TINY: dict[str, Any] = {
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 64,
    "hidden_dim": 64,
    "embedding_size": 32,
    "global_attn_every_n_layers": 2,
    **{f"{role}_{size}": value for role in ("encoder", "decoder") for size, value in _TINY_SUBMODEL.items()},
    "attention_window": [16, 16],
    "attention_types": [[["global", "local"], 1]],
}
# Types whose ids may not be None.
_IDS_ARE_NUMBERS = {"modernbert-decoder"}
_DROPOUT_NAMES = (
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout", "dropout_rate"),
    *("resid_pdrop", "embd_pdrop", "emb_pdrop", "attn_pdrop", "embedding_dropout", "mlp_dropout"),
    *("hidden_dropout", "resid_dropout", "residual_dropout", "embed_dropout", "activation_dropout"),
    *("lsh_attention_probs_dropout_prob", "local_attention_probs_dropout_prob"),
)
# Read by the model although the config class does not declare them.
_UNDECLARED = {"deberta-v2": {"position_buckets", "norm_rel_ebd", "share_att_key"}}
# Their positions are relative: any length works, whatever max_position_embeddings is.
_UNBOUNDED = {"t5", "mt5", "umt5", "deberta-v2", "deberta", "longt5"}


def submodel_config(
    settings: HalfSettings, role: Role, vocab_size: int | None = None, pad_id: int | None = None
) -> PreTrainedConfig:
    """Read the config of a submodel from its checkpoint, or build one for random weights.

    Args:
        settings: Which checkpoint, or which model type and ``architecture``.
        role: ``encoder`` or ``decoder``.
        vocab_size: For random weights, the number of tokens of the tokenizer; None keeps the type's own.
        pad_id: For random weights, the pad id of the tokenizer; None keeps the type's own.

    Returns:
        A config that is ready for its role: a decoder's has a causal mask, an encoder's has no cross-attention.

    Raises:
        UserError: the type is unknown, cannot serve in this role, or has no such ``architecture`` key.
    """
    config: PreTrainedConfig
    if settings.weights is Weights.pretrained:
        path = resolve_path(settings.path)  # which may have to write: a full disk is not an error of the file
        try:
            check_adapter(path, {"revision": settings.revision})
            config = AutoConfig.from_pretrained(path, revision=settings.revision, trust_remote_code=False)
            refuse_kernels(config)
        except Exception as error:  # a damaged config.json raises whatever its first reader raises
            if says_nothing_of_the_file(error) and not isinstance(error, ImportError):
                raise
            raise UserError(
                f"{role}={settings.name}: no model can be read from {settings.path}: {first_line(error)}"
            ) from error
    else:
        config = _config_of_type(settings, role, vocab_size, pad_id)
    _check_role(config, settings, role)
    if role == "decoder":
        config = text_part(config)
        make_decoder(config, grafted=not has_own_cross_attention(config))
    else:
        config.is_decoder = config.add_cross_attention = False
        if settings.attention is Attention.bidirectional:
            config.is_causal = False
    if role == "decoder" and settings.attention is not Attention.own:
        raise UserError(f"decoder.attention={settings.attention.value}: a decoder must not see later tokens.")
    return config


def maximum_positions(config: PreTrainedConfig) -> int | None:
    """Return the longest sequence of a submodel in tokens; None where positions are relative and any length works."""
    positions = getattr(config, "max_position_embeddings", None)
    if config.model_type in _UNBOUNDED or not isinstance(positions, int) or positions <= 0:
        return None
    if config.model_type in POSITIONS_BEHIND_PAD:
        positions -= (config.pad_token_id or 0) + 1
    return positions


def set_dropout(config: PreTrainedConfig, dropout: float | None) -> bool:
    """Set every dropout of the config and of configs inside it (T5Gemma's encoder); return whether there is one."""
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
    """Return the first line of an error's text, or its class where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _config_of_type(settings: HalfSettings, role: Role, vocab_size: int | None, pad_id: int | None) -> PreTrainedConfig:
    try:
        config = AutoConfig.for_model(settings.model_type)
    except ValueError:
        raise UserError(
            f"{role}.model_type={settings.model_type} is not a model type of the installed transformers."
        ) from None
    _check_role(config, settings, role)
    values = dict(settings.architecture)
    undeclared = _UNDECLARED.get(settings.model_type, set())
    unknown = [name for name in values if not hasattr(config, name) and name not in undeclared]
    if unknown:
        raise UserError(f"{role}.architecture: {settings.model_type} has no {', '.join(unknown)}.")
    if settings.scale is Scale.tiny:
        values |= {name: value for name, value in _TINY.items() if hasattr(config, name)}
    if vocab_size is not None:
        values["vocab_size"] = vocab_size
        names = ("bos_token_id", "eos_token_id", "pad_token_id", "cls_token_id", "sep_token_id")
        ids = {name: values.get(name, getattr(config, name, None)) for name in names}
        # Ids of the real vocabulary may lie outside a small one; the pair of tokenizers sets those in use.
        absent = 0 if settings.model_type in _IDS_ARE_NUMBERS else None
        values |= {name: absent for name, value in ids.items() if isinstance(value, int) and value >= vocab_size}
        if isinstance(ids["pad_token_id"], int):  # the embedding of this id does not train
            if pad_id is not None:
                values["pad_token_id"] = pad_id
            elif ids["pad_token_id"] >= vocab_size:
                values["pad_token_id"] = 0
    # attribute_map translates the common names (hidden_size) to the type's own (n_embd).
    mapped = {type(config).attribute_map.get(name, name): value for name, value in values.items()}
    return AutoConfig.for_model(settings.model_type, **mapped)


def _check_role(config: PreTrainedConfig, settings: HalfSettings, role: Role) -> None:
    try:
        (encoder_class if role == "encoder" else decoder_class)(config)
        check_trainable(config)
    except ValueError as error:
        raise UserError(f"{role}={settings.name}: {error}") from None
