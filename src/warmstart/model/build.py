"""Build a joint model from the settings in conf/encoder, conf/decoder and conf/bridge.

    build_model(encoder, decoder, bridge, special_ids=..., encoder_vocab_size=..., decoder_vocab_size=...)

A submodel is loaded from a hub id, a folder or an installed package, or has random weights, also in a tiny size.
"""

import logging
import pickle
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM

from warmstart import cpu
from warmstart.config.model import (
    NO_ENCODER,
    Attention,
    BridgeSettings,
    CrossAttentionInit,
    Embeddings,
    Share,
    SubmodelSettings,
    Weights,
    WhichSubmodels,
    fault_of_no_encoder,
    fault_of_sharing,
)
from warmstart.errors import UserError, says_nothing_of_the_file
from warmstart.model.assets import resolve_path
from warmstart.model.bridge.copied_embeddings import copy_embeddings
from warmstart.model.bridge.copy_init import copy_cross_attention
from warmstart.model.bridge.lora import add_lora
from warmstart.model.decoders import has_own_cross_attention, make_decoder
from warmstart.model.encoders import build_encoder, check_sees_both_ways
from warmstart.model.extractive import ExtractiveModel
from warmstart.model.loading import load_submodels
from warmstart.model.modeling import EncoderDecoderModel
from warmstart.model.positions import lengthen, lengthen_config
from warmstart.model.segments import START, mark_sentences
from warmstart.model.submodel_config import first_line, maximum_positions, set_dropout, submodel_config
from warmstart.model.variants import joint_class

_log = logging.getLogger(__name__)


def build_model(
    encoder: SubmodelSettings,
    decoder: SubmodelSettings,
    bridge: BridgeSettings,
    *,
    special_ids: dict[str, Any],
    encoder_vocab_size: int,
    decoder_vocab_size: int,
    encoder_pad_id: int | None = None,
    longest_target: int = 0,
    sentence_ids: dict[str, int] | None = None,
) -> EncoderDecoderModel:
    """Build the joint model in float32, whatever the dtype of the checkpoints.

    Args:
        encoder: Settings of conf/encoder.
        decoder: Settings of conf/decoder.
        bridge: Settings of conf/bridge.
        special_ids: The decoder's start, end and pad ids, and ``prompt_ids`` if targets begin with a prompt.
        encoder_vocab_size: Number of tokens in the encoder's tokenizer: the vocabulary size of a random encoder, and
            the minimum for a pretrained one.
        decoder_vocab_size: Number of tokens in the decoder's tokenizer, used likewise.
        encoder_pad_id: Pad id of the encoder's tokenizer, used by a random encoder.
        longest_target: Longest target in tokens, for which the decoder needs positions after a prompt.
        sentence_ids: The ids around sentences (``TokenizerPair.sentence_ids``); none if sentences are not marked.

    Returns:
        The joint model, with frozen parameters and adapters according to ``bridge``.

    Raises:
        UserError: The settings contradict each other, or a checkpoint cannot be read.
    """
    if fault := fault_of_no_encoder(encoder, bridge) or fault_of_sharing(encoder, decoder, bridge):
        raise UserError(fault)
    chosen = {"encoder": encoder, "decoder": decoder}
    configs = {
        "encoder": submodel_config(encoder, "encoder", encoder_vocab_size, encoder_pad_id),
        "decoder": submodel_config(decoder, "decoder", decoder_vocab_size, special_ids["pad_token_id"]),
    }
    if encoder.weights is Weights.random:
        lengthen_config(configs["encoder"], encoder, "encoder")
    marks = dict(sentence_ids or {})
    mark_sentences(configs["encoder"], marks.pop(START, None))
    for role, needed in (("encoder", encoder_vocab_size), ("decoder", decoder_vocab_size)):
        if needed > configs[role].vocab_size:
            raise UserError(
                f"The {role}'s tokenizer has {needed} tokens, but the model has {configs[role].vocab_size} embeddings. "
                f"Set {role}.tokenizer to the tokenizer of this model."
            )
        has_dropout = set_dropout(configs[role], bridge.dropout) or chosen[role].model_type == NO_ENCODER
        if bridge.dropout and not has_dropout:
            _log.warning(
                "bridge.dropout=%g has no effect in %s=%s: a %s has no dropout.",
                bridge.dropout,
                role,
                chosen[role].name,
                configs[role].model_type,
            )
    prompt, positions = len(special_ids.get("prompt_ids") or []), maximum_positions(configs["decoder"])
    if prompt and positions is not None and prompt + longest_target > positions:
        raise UserError(
            f"data.prompt and data.start_tokens have {prompt + 1} tokens, and data.max_target_length={longest_target} "
            f"tokens follow, but decoder={decoder.name} has {positions} positions. Shorten the prompt, or lower the "
            "length."
        )
    joint: dict[str, Any] = dict(special_ids)
    joint["tie_encoder_decoder"] = bridge.share is Share.weights
    joint["tie_embeddings"] = bridge.share is Share.embeddings
    has_encoder = encoder.model_type != NO_ENCODER
    if not has_encoder:
        joint["graft"] = {}  # the decoder is built without cross-attention of its own, and gets none
        make_decoder(configs["decoder"], grafted=True)
    elif not has_own_cross_attention(configs["decoder"]):
        joint["graft"] = {
            "every_n_layers": bridge.every_n_layers,
            "gate": bridge.gate.value,
            "dropout": bridge.dropout or 0.0,
            "bias": bridge.bias,
        }
    # Not the checkpoint's dtype: in bfloat16 most updates at a small learning rate are rounded away.
    # trainer.precision=bf16-true casts the weights later.
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
        if joint_class(encoder, decoder) is ExtractiveModel:
            joint |= marks
        for role, settings in chosen.items():
            if settings.weights is Weights.random:
                loaded.mark_untrained(role)
        if encoder.weights is Weights.pretrained:
            lengthen(loaded.encoder, encoder)
        model = joint_class(encoder, decoder).from_submodels(loaded, joint)
        if encoder.attention is Attention.bidirectional:
            check_sees_both_ways(model.encoder)
        if has_encoder and bridge.init is CrossAttentionInit.copy:
            copy_cross_attention(model)
        if bridge.embeddings is Embeddings.copy:
            copy_embeddings(model)
        lora = lora_settings(bridge)
        if lora is not None:
            add_lora(model, lora)
    except ValueError as error:
        raise UserError(
            f"encoder={encoder.name} decoder={decoder.name} bridge.share={bridge.share.value}: {error}"
        ) from None
    # A weights file that is corrupt, has other shapes, or contains code.
    except (OSError, RuntimeError, KeyError, pickle.UnpicklingError, SafetensorError) as error:
        given = [one.path for one in (encoder, decoder) if one.weights is Weights.pretrained]
        if not given or says_nothing_of_the_file(error):
            raise
        raise UserError(f"The weights of {' or '.join(given)} cannot be read: {first_line(error)}") from error
    cpu.accelerate(model)
    freeze(model, bridge)
    return model


def freeze(model: EncoderDecoderModel, bridge: BridgeSettings) -> None:
    """Freeze the submodels that ``bridge.freeze`` names, and those with adapters (``bridge.lora``), in place.

    Raises:
        UserError: ``bridge.freeze`` is set, but encoder and decoder share all weights.
    """
    if bridge.freeze is not WhichSubmodels.none and bridge.share is Share.weights:
        raise UserError(
            "bridge.freeze cannot be combined with bridge.share=weights, in which both submodels are one. "
            "Choose one of the two."
        )
    if {bridge.freeze, bridge.lora} & {WhichSubmodels.encoder, WhichSubmodels.both}:
        model.freeze_encoder()
    if {bridge.freeze, bridge.lora} & {WhichSubmodels.decoder, WhichSubmodels.both}:
        model.freeze_decoder()


def lora_settings(bridge: BridgeSettings) -> dict[str, Any] | None:
    """Return the value of ``EncoderDecoderConfig.lora`` for these settings; None without adapters."""
    if bridge.lora is WhichSubmodels.none:
        return None
    return {"halves": bridge.lora.value, "rank": bridge.lora_rank, "alpha": bridge.lora_alpha}
