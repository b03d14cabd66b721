"""From what a researcher chose (conf/encoder, conf/decoder, conf/bridge) to a joint model.

    build_model(encoder, decoder, bridge, special_ids=..., encoder_vocab_size=..., decoder_vocab_size=...)

The weights of a submodel come from a hub id, a local folder or a folder inside an installed package; or they are
random, in the same architecture or in one of two layers.
"""

import logging
import pickle
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM

from warmstart import cpu
from warmstart.config.model import (
    Attention,
    BridgeSettings,
    CrossAttentionInit,
    HalfSettings,
    Halves,
    Share,
    Weights,
    fault_of_sharing,
)
from warmstart.errors import UserError, says_nothing_of_the_file
from warmstart.model.assets import resolve_path
from warmstart.model.bridge.copy_init import copy_cross_attention
from warmstart.model.bridge.lora import add_lora
from warmstart.model.decoders import has_own_cross_attention
from warmstart.model.encoders import build_encoder, check_sees_both_ways
from warmstart.model.loading import load_submodels
from warmstart.model.modeling import EncoderDecoderModel
from warmstart.model.submodel_config import first_line, set_dropout, submodel_config

_log = logging.getLogger(__name__)


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
    """Join encoder and decoder as the bridge chooses, in float32 whatever the checkpoints are in.

    Args:
        encoder: conf/encoder.
        decoder: conf/decoder.
        bridge: conf/bridge.
        special_ids: The decoder's start, end and pad ids.
        encoder_vocab_size: Number of tokens of the encoder's tokenizer. Random weights take it over; a pretrained
            submodel has to have an embedding for each.
        decoder_vocab_size: Number of tokens of the decoder's tokenizer.
        encoder_pad_id: The encoder's pad id, which random weights take over.

    Returns:
        The joint model, with frozen parameters and adapters as the bridge chooses.

    Raises:
        UserError: encoder, decoder and bridge contradict each other.
    """
    if fault := fault_of_sharing(encoder, decoder, bridge):
        raise UserError(fault)
    chosen = {"encoder": encoder, "decoder": decoder}
    configs = {
        "encoder": submodel_config(encoder, "encoder", encoder_vocab_size, encoder_pad_id),
        "decoder": submodel_config(decoder, "decoder", decoder_vocab_size, special_ids["pad_token_id"]),
    }
    for role, needed in (("encoder", encoder_vocab_size), ("decoder", decoder_vocab_size)):
        if needed > configs[role].vocab_size:
            raise UserError(
                f"{role}: its tokenizer has {needed} tokens, but the model has {configs[role].vocab_size} embeddings. "
                f"They are not from one checkpoint; set {role}.tokenizer to the right one."
            )
        if not set_dropout(configs[role], bridge.dropout) and bridge.dropout:
            _log.warning(
                "bridge.dropout=%g changes nothing inside %s=%s: a %s has no dropout.",
                bridge.dropout,
                role,
                chosen[role].name,
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
    # Not the dtype of the checkpoint: in bfloat16 most updates of a warm start round to nothing. trainer.precision
    # casts the loaded weights where that is wanted (bf16-true).
    kwargs: dict[str, Any] = {"dtype": torch.float32}
    paths: dict[str, str] = {}
    for role, settings in chosen.items():
        if settings.weights is Weights.pretrained:
            paths[role] = resolve_path(settings.path)
            kwargs |= {f"{role}_config": configs[role], f"{role}_revision": settings.revision}
    if encoder.weights is Weights.random:
        kwargs["encoder_model"] = build_encoder(configs["encoder"])
    if decoder.weights is Weights.random:
        kwargs["decoder_model"] = AutoModelForCausalLM.from_config(configs["decoder"])
    try:
        loaded, joint = load_submodels(paths.get("encoder"), paths.get("decoder"), kwargs | joint)
        for role, settings in chosen.items():
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
    # A weights file that is damaged, has other shapes, or holds code in addition to data.
    except (OSError, RuntimeError, KeyError, pickle.UnpicklingError, SafetensorError) as error:
        given = [one.path for one in (encoder, decoder) if one.weights is Weights.pretrained]
        if not given or says_nothing_of_the_file(error):
            raise
        raise UserError(f"The weights of {' or '.join(given)} cannot be read: {first_line(error)}") from error
    cpu.accelerate(model)
    freeze(model, bridge)
    return model


def freeze(model: EncoderDecoderModel, bridge: BridgeSettings) -> None:
    """Freeze the submodels that the bridge freezes, and those that train adapters instead.

    Raises:
        UserError: encoder and decoder share all their weights.
    """
    if bridge.freeze is not Halves.none and bridge.share is Share.weights:
        raise UserError(
            "bridge.freeze cannot be combined with bridge.share=weights, which makes encoder and decoder one. "
            "Choose one of the two."
        )
    if {bridge.freeze, bridge.lora} & {Halves.encoder, Halves.both}:
        model.freeze_encoder()
    if {bridge.freeze, bridge.lora} & {Halves.decoder, Halves.both}:
        model.freeze_decoder()


def lora_settings(bridge: BridgeSettings) -> dict[str, Any] | None:
    """Return ``EncoderDecoderConfig.lora`` for the bridge; None where it has no adapters."""
    if bridge.lora is Halves.none:
        return None
    return {"halves": bridge.lora.value, "rank": bridge.lora_rank, "alpha": bridge.lora_alpha}
