"""Check a config and predict the cost of its fit, without training anything or downloading weights.

    python run.py task=check encoder=bert decoder=gpt2

All invalid settings are reported at once. ``task=fit`` starts with the same check (``validate``). The shapes of a
submodel on the hub come from its model type and ``architecture``, or with ``encoder=hf`` and ``decoder=hf`` from its
config.json, a few kilobytes; all of its parameters count as pretrained.
"""

import math
from difflib import get_close_matches
from pathlib import Path
from textwrap import shorten
from typing import Any

from warmstart.config.bounds import faults_of_ids, faults_of_numbers, faults_of_one_sequence, faults_of_search
from warmstart.config.data import DataKind
from warmstart.config.explicit import CommandLine
from warmstart.config.model import (
    AUTO_TYPE,
    PACKAGE_FILE,
    Embeddings,
    Scale,
    Share,
    SubmodelSettings,
    Weights,
    WhichSubmodels,
    fault_of_no_encoder,
    fault_of_sharing,
)
from warmstart.config.paper import described
from warmstart.config.schema import Config, tokenized_submodels
from warmstart.config.training import ACCELERATORS, PRECISIONS
from warmstart.data.hub_access import Unreachable, hub_reachable
from warmstart.errors import UserError, listed
from warmstart.printing import say
from warmstart.runs.starting_weights import fault_of_start
from warmstart.tasks.data_faults import faults_of_data
from warmstart.training.distillation import check_teacher, faults_of_dropout, faults_of_soft_targets

LONGEST_SHOWN = 160  # characters of a text of the preview


def faults(settings: Config) -> list[str]:
    """Return one message for each invalid setting of a fit; an empty list if the config is valid."""
    from warmstart.model.decoders import NO_GRADIENT_CHECKPOINTING
    from warmstart.model.submodel_config import maximum_positions

    found = faults_of_numbers(settings) + faults_of_soft_targets(settings)
    if fault := fault_of_start(settings):
        found.append(fault)
    batch = settings.data.batch
    if batch.max_tokens is None and batch.size is None:
        found.append("data.batch: set max_tokens (a token budget) or size (examples in a batch).")
    if settings.trainer.extra:  # only then: importing Lightning takes longer than all other checks
        from warmstart.training.trainer import check_extra

        try:
            check_extra(settings.trainer.extra)
        except UserError as error:
            found.append(str(error))
    if settings.trainer.precision == "16-mixed" and settings.trainer.accelerator == "cpu":
        found.append("trainer.precision=16-mixed: on a CPU Lightning uses bf16-mixed instead. Set that, or 32-true.")
    if settings.trainer.precision not in PRECISIONS:
        known = ", ".join(PRECISIONS)
        found.append(f"trainer.precision={settings.trainer.precision}: not a precision of Lightning. Choose: {known}.")
    if settings.trainer.accelerator not in ACCELERATORS:
        known = ", ".join(ACCELERATORS)
        found.append(f"trainer.accelerator={settings.trainer.accelerator}: unknown accelerator. Choose: {known}.")
    found += _faults_of_strategy(settings.trainer.strategy) + _faults_of_shards(settings)
    contradictions = _faults_of_bridge(settings)
    found += contradictions
    found += faults_of_data(settings.data)
    lengths = {"encoder": settings.data.max_source_length, "decoder": settings.data.max_target_length}
    is_buildable = not contradictions and not any(fault.startswith("bridge.") for fault in found)
    for role, submodel in (("encoder", settings.encoder), ("decoder", settings.decoder)):
        try:
            if submodel.scale is Scale.tiny and submodel.weights is Weights.pretrained:
                raise UserError(f"{role}.scale=tiny needs {role}.weights=random: no checkpoint has that size.")
            config = architecture(submodel, role)
            positions = maximum_positions(config)
        except UserError as error:
            found.append(str(error))
            is_buildable = False
            continue
        reason = NO_GRADIENT_CHECKPOINTING.get(config.model_type) if role == "decoder" else None
        if reason and settings.trainer.checkpoint_activations:
            found.append(f"trainer.checkpoint_activations=true: not with decoder={submodel.name}, {reason}.")
        length = lengths[role]
        option = "data.max_source_length" if role == "encoder" else "data.max_target_length"
        if positions is not None and length > positions:
            found.append(
                f"{option}={length}, but {role}={submodel.name} has {positions} positions. Set at most {positions}."
            )
        vocabulary = getattr(config, "vocab_size", None) or math.inf
        if ids := faults_of_ids(role, submodel, vocabulary):
            found += ids
            is_buildable = False
        if role == "decoder":
            found += faults_of_search(settings.generation, submodel.name, positions, vocabulary)
            found += faults_of_one_sequence(settings, positions)
    if is_buildable:
        try:
            model = pair_without_values(settings)
            found += faults_of_dropout(settings, model) if settings.bridge.dropout is None else []
        except UserError as error:
            found.append(str(error))
    return found


def validate(settings: Config) -> None:
    """Check the settings of a fit.

    Raises:
        UserError: some are invalid; the message lists all of them.
    """
    _refuse(faults(settings))


def validate_numbers(settings: Config) -> None:
    """Check the numbers of a config. ``validate`` also checks what only a fit needs.

    Raises:
        UserError: some are invalid; the message lists all of them.
    """
    _refuse(faults_of_numbers(settings))


def _refuse(found: list[str]) -> None:
    if len(found) == 1:
        raise UserError(found[0])
    if found:
        raise UserError(f"{len(found)} errors in this config:\n" + "\n".join(f"  - {fault}" for fault in found))


def run(settings: Config, run_dir: Path) -> None:
    """Print the predicted cost of the fit.

    Raises:
        UserError: settings are invalid; the message lists all of them.
    """
    from warmstart.profiling.cost import predict
    from warmstart.tasks.predicted_cost import lines_of
    from warmstart.training.plausibility import implausible
    from warmstart.training.recipe import with_recipe

    chosen = with_recipe(settings)
    settings = chosen.settings
    untrained = _untrained_first_run(settings)
    _refuse([fault for fault in faults(settings) if fault != untrained])
    _check_references(settings)
    tokenizers = _local_tokenizers(settings)
    cost = predict(settings, model := pair_without_values(settings), tokenizers)
    names = f"encoder={settings.encoder.name} decoder={settings.decoder.name} data={settings.data.name}"
    doubts = implausible(settings, cost.steps, cost.examples, cost.label_lengths, model)
    if untrained:
        doubts.append(f"{untrained} The recipe starts from it: train it first.")
    recipe = ["  chosen from the data (trainer.recipe=auto); each can be set:"] if chosen.choices else []
    recipe += [f"    {choice}" for choice in chosen.choices]
    shown = described(settings) + lines_of(settings, cost) + _first_pairs(settings, tokenizers)
    say(f"{names}: the config is valid.", *recipe, *shown, *(f"Warning: {one}" for one in doubts))


def _untrained_first_run(settings: Config) -> str | None:
    """Return the message if a recipe, and not the command line, names a run as its start that is not there; else None.

    The cost of a recipe's second run can be predicted before its first run is trained.
    """
    line = CommandLine.current()
    if line is None or settings.ckpt_weights is None or Path(settings.ckpt_weights).exists():
        return None
    is_named = any(word.lstrip("+").partition("=")[0] in ("ckpt", "ckpt_weights") for word in line.overrides)
    return None if is_named else fault_of_start(settings)


def _check_references(settings: Config) -> None:
    """Raise a UserError if the metrics of the fit cannot read the references in the user's own files."""
    from warmstart.data.sources.load import load_source
    from warmstart.runs.scored_data import UNSCORED_FIT, check_scripts
    from warmstart.training.scoring import scored_splits

    if settings.data.kind is DataKind.files and (scored := scored_splits(settings)):
        source = load_source(settings.data, ["train", *scored], overlaps=False)
        check_scripts(source, scored, UNSCORED_FIT, settings.data.language)


def _local_tokenizers(settings: Config) -> Any:
    """Return the pair's tokenizers, or None if they, or the texts, would have to be downloaded or trained."""
    from warmstart.data.tokenization.load import is_on_this_machine, load_tokenizer
    from warmstart.data.tokenization.pair import pair_of

    tokenized = tokenized_submodels(settings)
    is_local = all(one.weights is Weights.pretrained and is_on_this_machine(one) for one, _ in tokenized)
    if settings.data.kind in (DataKind.cnn_dailymail, DataKind.hub) or not is_local:
        return None
    return pair_of([load_tokenizer(one, role, list) for one, role in tokenized], settings)


def _first_pairs(settings: Config, tokenizers: Any) -> list[str]:
    """Show the first training pairs as the model reads them, if there are tokenizers for it."""
    if tokenizers is None:
        return []
    from warmstart.data.preview import first_pairs
    from warmstart.data.sources.load import load_source
    from warmstart.data.tokenization.target_start import target_start

    check_teacher(settings, tokenizers)
    lines = []
    for one in first_pairs(load_source(settings.data, ["train"]), tokenizers, settings.data):
        cut = [
            f"{name}: {tokens} of {uncut} tokens"
            for name, tokens, uncut in (
                ("document", one.document_tokens, one.document_tokens_uncut),
                ("summary", one.summary_tokens, one.summary_tokens_uncut),
            )
        ]
        if one.windows > 1:
            cut[0] += f" in {one.windows} windows"
        lines += [
            f"  pair {one.id}: {', '.join(cut)}",
            f"    document  {shorten(one.document, LONGEST_SHOWN, placeholder=' ...')}",
            f"    summary   {shorten(one.summary, LONGEST_SHOWN, placeholder=' ...')}",
        ]
    start = target_start(tokenizers, settings.data)
    begins = [start["decoder_start_token_id"], *(start["prompt_ids"] or [])]
    if begins != [tokenizers.special_ids()["decoder_start_token_id"]]:
        lines.append(f"  Every summary begins with {tokenizers.target.decode(begins)!r}, which is not part of it.")
    return ["  The first training pairs, as the model reads them:", *lines]


def _is_here(path: str) -> bool:
    return path.startswith(PACKAGE_FILE) or Path(path).exists()


def architecture(submodel: SubmodelSettings, role: Any) -> Any:
    """Return a submodel's transformers config. The hub is only asked if ``model_type`` is ``auto``.

    Args:
        submodel: settings of the encoder or decoder.
        role: ``encoder`` or ``decoder``.

    Returns:
        The config at ``path`` if that is on this machine or ``model_type`` is ``auto``, else one from ``model_type``
        and ``architecture``; with the positions of ``encoder.positions``.

    Raises:
        UserError: the config cannot be read or built.
    """
    from warmstart.model.positions import lengthen_config

    config = _unlengthened(submodel, role)
    lengthen_config(config, submodel, role)
    return config


def _unlengthened(submodel: SubmodelSettings, role: Any) -> Any:
    from dataclasses import replace

    from warmstart.data.tokenization.train import TINY_VOCABULARY
    from warmstart.model.submodel_config import submodel_config

    vocab_size = TINY_VOCABULARY if submodel.scale is Scale.tiny else None
    if _is_here(submodel.path):
        return submodel_config(submodel, role, vocab_size)
    if submodel.model_type != AUTO_TYPE:
        return submodel_config(replace(submodel, weights=Weights.random), role, vocab_size)
    is_reachable = submodel.path.startswith((".", "/")) or hub_reachable()  # a folder needs no hub
    try:
        return submodel_config(submodel, role, vocab_size)
    except UserError:
        if is_reachable:
            raise
        raise Unreachable(f"{role}={submodel.name} ({submodel.path})") from None


def pair_without_values(settings: Config) -> Any:
    """Build the encoder-decoder model on the meta device: shapes without values.

    New parameters are marked as new, and frozen ones are frozen.

    Raises:
        UserError: encoder, decoder and bridge do not fit together.
    """
    import torch

    from warmstart.model.bridge.copied_embeddings import mark_copied
    from warmstart.model.build import freeze, lora_settings
    from warmstart.model.decoders import has_own_cross_attention
    from warmstart.model.variants import joint_class

    bridge, submodels = settings.bridge, {"encoder": settings.encoder, "decoder": settings.decoder}
    configs = {role: architecture(submodel, role) for role, submodel in submodels.items()}
    graft = {"every_n_layers": bridge.every_n_layers, "gate": bridge.gate.value, "bias": bridge.bias}
    try:
        with torch.device("meta"):
            joint = joint_class(settings.encoder, settings.decoder)
            config = joint.config_class(
                **configs,
                tie_encoder_decoder=bridge.share is Share.weights,
                tie_embeddings=bridge.share is Share.embeddings,
                graft=None if has_own_cross_attention(configs["decoder"]) else graft,
                lora=lora_settings(bridge),
            )
            model = joint(config)
    except ValueError as error:
        names = f"encoder={settings.encoder.name} decoder={settings.decoder.name}"
        raise UserError(f"{names} bridge.share={bridge.share.value}: {error}") from None
    for role, submodel in submodels.items():
        if submodel.weights is Weights.random:
            model.mark_new(f"{role}.")
    if bridge.embeddings is Embeddings.copy:
        mark_copied(model)
    freeze(model, bridge)
    return model


def _faults_of_bridge(settings: Config) -> list[str]:
    bridge, found = settings.bridge, []
    if fault := fault_of_no_encoder(settings.encoder, bridge):
        return [fault]
    if fault := fault_of_sharing(settings.encoder, settings.decoder, bridge):
        found.append(fault)
    for option, chosen in (("freeze", bridge.freeze), ("lora", bridge.lora)):
        if chosen is WhichSubmodels.none:
            continue
        if bridge.share is Share.weights:
            found.append(
                f"bridge.{option}={chosen.value} contradicts bridge.share=weights: encoder and decoder have the same "
                "weights. Set only one of the two options."
            )
            continue
        for role, submodel in (("encoder", settings.encoder), ("decoder", settings.decoder)):
            # debug=tiny makes both submodels random, and must accept every bridge option.
            is_random = submodel.weights is Weights.random and submodel.scale is not Scale.tiny
            if chosen.value in (role, "both") and is_random:
                found.append(
                    f"bridge.{option}={chosen.value} cannot freeze the {role}: with {role}.weights=random all of its "
                    f"parameters are new, and new parameters always train. Set {role}.weights=pretrained, or another "
                    f"bridge.{option}."
                )
    return found


def _faults_of_strategy(name: str) -> list[str]:
    if name in ("auto", "ddp", "fsdp"):
        return []
    from lightning.pytorch.strategies import StrategyRegistry

    if name in (known := sorted(StrategyRegistry.available_strategies())):
        return []
    near = get_close_matches(name, ["auto", *known], n=3)
    hint = f"Did you mean {listed(near)}?" if near else "Set auto, ddp or fsdp."
    return [f"trainer.strategy={name}: unknown strategy. {hint}"]


def _faults_of_shards(settings: Config) -> list[str]:
    trainer = settings.trainer
    if trainer.strategy != "fsdp":
        return []
    from torch.distributed.fsdp import FSDPModule

    from warmstart.config.precision import SHARDED_PRECISIONS, resolve_precision

    if not hasattr(FSDPModule, "reset_iter_state"):
        return ["trainer.strategy=fsdp needs torch 2.13. Upgrade it, or set trainer.strategy=ddp."]
    if resolve_precision(trainer.precision, trainer.accelerator) in SHARDED_PRECISIONS:
        return []
    return [
        f"trainer.precision={trainer.precision} does not work with trainer.strategy=fsdp: an overflow on one rank "
        f"is not seen by the others. Set one of {', '.join(SHARDED_PRECISIONS)}, or trainer.strategy=ddp."
    ]
