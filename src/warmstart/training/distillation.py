"""Learn from a teacher: compare probabilities (``optim.distill=logits``), or train on its summaries (``beams``).

    python run.py encoder=minilm decoder=minilm optim.distill=logits optim.teacher=runs/large
    python run.py encoder=minilm decoder=minilm optim.distill=beams optim.teacher=runs/large generation=beam

The teacher is only read: it is not trained, and not part of checkpoints, parameter counts or exports.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmstart.config.data import Objective
from warmstart.config.model import NO_ENCODER, SELECTOR
from warmstart.config.schema import Config
from warmstart.config.training import Distill
from warmstart.errors import UserError
from warmstart.runs.saved_model import SavedModel

if TYPE_CHECKING:
    from warmstart.model.soft_targets import SoftTargets


def faults_of_soft_targets(settings: Config) -> list[str]:
    """Return a message for each invalid setting of distillation and R-Drop that shows without loading a model."""
    optim, found = settings.optim, []
    kind, teacher = optim.distill, optim.teacher
    if kind is Distill.none and teacher is not None:
        found.append(
            f"optim.teacher={teacher} has no effect with optim.distill=none. Set optim.distill to logits or beams, or "
            "leave the teacher out."
        )
    elif kind is not Distill.none and teacher is None:
        found.append(
            f"optim.distill={kind.value} needs a teacher. Set optim.teacher to a run directory, a .ckpt file or an "
            "export."
        )
    elif teacher is not None and (fault := teacher_of(settings).fault):
        found.append(fault)
    if kind is Distill.beams and settings.data.objective is not Objective.summary:
        found.append(
            f"optim.distill=beams replaces the targets, which data.objective={settings.data.objective.value} makes "
            "itself. Set data.objective=summary or optim.distill=logits."
        )
    if settings.decoder.model_type == SELECTOR:
        by_token = {"optim.distill=logits": kind is Distill.logits, f"optim.rdrop={optim.rdrop:g}": optim.rdrop > 0}
        found += [
            f"{option} compares probabilities of tokens, but decoder={settings.decoder.name} selects sentences. "
            f"Leave {option.partition('=')[0]} out."
            for option, is_set in by_token.items()
            if is_set
        ]
    if optim.rdrop > 0 and settings.bridge.dropout == 0:
        found.append(_without_dropout(settings))
    return found


def check_other_folder(settings: Config, folder: Path) -> None:
    """Check that the fit does not write into the folder of its teacher.

    Args:
        settings: the config of the fit.
        folder: the run directory.

    Raises:
        UserError: the teacher is the run itself, or a checkpoint or an export in its folder.
    """
    teacher = None if settings.optim.teacher is None else Path(settings.optim.teacher).resolve()
    if teacher is not None and folder.resolve() in (teacher, *teacher.parents):
        raise UserError(
            f"optim.teacher={settings.optim.teacher} is in {folder}, the folder that this fit writes, which would "
            "replace the teacher. Set another name=."
        )


def _without_dropout(settings: Config) -> str:
    return (
        f"optim.rdrop={settings.optim.rdrop:g} compares two passes with different dropout, but the model has no "
        "dropout, so both are equal. Set bridge.dropout=0.1, or optim.rdrop=0."
    )


def faults_of_dropout(settings: Config, model: Any) -> list[str]:
    """Return a message if R-Drop is set for a model without dropout."""
    from warmstart.model.call_checks import has_dropout

    return [_without_dropout(settings)] if settings.optim.rdrop > 0 and not has_dropout(model) else []


def not_predicted(settings: Config) -> list[str]:
    """Name the work of these options that ``task=check`` leaves out of its prediction."""
    found = ["the teacher"] if settings.optim.distill is not Distill.none else []
    return [*found, "the second pass of R-Drop"] if settings.optim.rdrop else found


def teacher_of(settings: Config) -> SavedModel:
    """Return the model that ``optim.teacher`` names."""
    return SavedModel(str(settings.optim.teacher), "optim.teacher")


def check_teacher(settings: Config, tokenizers: Any) -> None:
    """Check that the teacher can read the student's batches, if ``optim.distill=logits`` needs it.

    Args:
        settings: the config of the fit.
        tokenizers: the student's ``TokenizerPair``.

    Raises:
        UserError: a tokenizer, the end id or the marks of sentences differ, the teacher selects sentences, or it cannot
            read sources or targets of this length or windows.
    """
    from warmstart.data.tokenization.contents import contents_of

    if settings.optim.distill is not Distill.logits:
        return
    given = str(settings.optim.teacher)
    saved = teacher_of(settings)
    pair, config = saved.tokenizers(), config_of(saved)
    otherwise = "Choose a teacher with the same tokenizers, or set optim.distill=beams."
    if pair.marks.labels:
        raise UserError(f"optim.teacher={given} selects sentences, and has no probabilities of tokens. {otherwise}")
    differences = [
        f"{role}: {len(theirs)} tokens, here {'as many others' if len(own) == len(theirs) else len(own)}"
        for role, theirs, own in (
            ("encoder", pair.source, tokenizers.source),
            ("decoder", pair.target, tokenizers.target),
        )
        if contents_of(theirs) != contents_of(own)
    ]
    ids = [one.special_ids()["eos_token_id"] for one in (pair, tokenizers)]
    if ids[0] != ids[1]:
        differences.append(f"end id {ids[0]}, here {ids[1]}")
    if pair.marks.source != tokenizers.marks.source:
        differences.append("data.source_form")
    if differences:
        raise UserError(
            f"optim.distill=logits compares token by token, but optim.teacher={given} has other tokenizers than this "
            f"fit ({'; '.join(differences)}). {otherwise}"
        )
    _check_lengths(settings, config)


def config_of(saved: SavedModel) -> Any:
    """Return the config of a saved model without reading its weights.

    Raises:
        UserError: it cannot be read.
    """
    from warmstart.model.variants import model_class

    try:
        if saved.is_export:
            values = json.loads((Path(saved.given) / "config.json").read_text(encoding="utf-8"))
        else:
            values = saved.hyper_parameters["model_config"]
        return model_class(values).config_class(**values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{saved.named}: its model config cannot be read ({type(error).__name__}: {error}). Choose another one."
        ) from error


def longest_source(config: Any, target: int) -> int | None:
    """Return the largest number of source tokens next to ``target`` tokens of a summary; None if there is no limit."""
    from warmstart.model.submodel_config import maximum_positions

    positions = maximum_positions(config.encoder)
    # Without an encoder, source and summary are one sequence.
    return positions if positions is None or config.encoder.model_type != NO_ENCODER else max(positions - target, 1)


def _check_lengths(settings: Config, config: Any) -> None:
    from warmstart.model.submodel_config import maximum_positions

    data, found = settings.data, []
    longest = maximum_positions(config.decoder)
    lengths = {
        "encoder": ("max_source_length", longest_source(config, data.max_target_length)),
        "decoder": ("max_target_length", None if longest is None else longest - len(config.prompt_ids or [])),
    }
    for role, (name, room) in lengths.items():
        if room is not None and room < (length := getattr(data, name)):
            found.append(f"its {role} has {room} positions: set data.{name}={room} instead of {length}")
    if config.encoder.model_type == NO_ENCODER and data.source_windows > 1:
        windows = f"data.source_windows={data.source_windows}"
        found.append(f"it has no encoder, so it cannot read {windows}: set optim.distill=beams")
    _refuse_misfit(settings, found)


def _refuse_misfit(settings: Config, found: list[str]) -> None:
    if found:
        raise UserError(f"optim.teacher={settings.optim.teacher} does not match this fit: {'; '.join(found)}.")


def soft_targets_of(settings: Config, model: Any) -> "SoftTargets | None":
    """Load the teacher whose logits a fit uses, and return the further terms of its loss; None if there are none.

    ``check_teacher`` checks the teacher before.

    Args:
        settings: the config of the fit.
        model: the student.

    Raises:
        UserError: the teacher cannot be loaded or has another number of embeddings, or the student has no dropout for
            R-Drop.
    """
    optim = settings.optim
    if optim.distill is not Distill.logits and not optim.rdrop:
        return None
    from warmstart.model.soft_targets import SoftTargets

    if found := faults_of_dropout(settings, model):
        raise UserError(found[0])
    teacher = None
    if optim.distill is Distill.logits:
        teacher = load_teacher(settings).model
        sizes = [one.config.decoder.vocab_size for one in (teacher, model)]
        if sizes[0] != sizes[1]:
            embeddings = f"its decoder has {sizes[0]} embeddings, here {sizes[1]}: set optim.distill=beams"
            _refuse_misfit(settings, [embeddings])
    return SoftTargets(teacher, optim.distill_weight, optim.distill_temperature, optim.rdrop)


def load_teacher(settings: Config) -> Any:
    """Load the teacher and its tokenizers, a ``Trained``.

    Raises:
        UserError: it cannot be loaded, or its weights are not finite.
    """
    from warmstart.runs.load import refuse_nonfinite

    saved = teacher_of(settings)
    trained = saved.load()
    refuse_nonfinite(saved.named, trained.model)
    return trained


def teacher_record(settings: Config, resume: SavedModel | None) -> dict[str, str]:
    """Return what the checkpoints of a fit record of its teacher: the SHA-256 of the weights. Empty without a teacher.

    Args:
        settings: the config of the fit.
        resume: the checkpoint to resume, if any.

    Raises:
        UserError: the fit to resume had other weights at the same path.
    """
    given = settings.optim.teacher
    if given is None:
        return {}
    digest = teacher_of(settings).digest
    if resume is not None and resume.config.get("optim", {}).get("teacher") == given:
        before = resume.hyper_parameters.get("teacher", digest)
        if before != digest:
            raise UserError(
                f"ckpt={resume.given} learned from optim.teacher={given} with other weights (SHA-256 {before[:12]}, "
                f"now {digest[:12]}). Restore them, or set ckpt=new to start over."
            )
    return {"teacher": digest}
