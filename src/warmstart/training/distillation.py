"""Learn from a teacher: compare probabilities (``optim.distill=logits``), or train on its summaries (``beams``).

    python run.py encoder=minilm decoder=minilm optim.distill=logits optim.teacher=runs/large
    python run.py encoder=minilm decoder=minilm optim.distill=beams optim.teacher=runs/large generation=beam

The teacher is only read: it is not trained, and not part of checkpoints, parameter counts or exports.
"""

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from warmstart.cache import cache_root
from warmstart.config.data import DataSettings, Objective
from warmstart.config.model import SELECTOR
from warmstart.config.schema import Config
from warmstart.config.training import Distill
from warmstart.errors import UserError
from warmstart.runs.saved_model import SavedModel

if TYPE_CHECKING:
    from warmstart.data.sources.base import Source
    from warmstart.model.soft_targets import SoftTargets

FORMAT_VERSION = 1  # of the summaries in the cache
_SUMMARIES = "summaries.jsonl"
# How the teacher was trained to read a document: taken from its run.
_READING = ("max_source_length", "source_windows", "window_overlap", "truncation", "source_form", "clean", "language")
_log = logging.getLogger(__name__)


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
    elif teacher is not None and not Path(teacher).exists():
        found.append(f"optim.teacher={teacher} does not exist. Name a run directory, a .ckpt file or an export.")
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


def _without_dropout(settings: Config) -> str:
    return (
        f"optim.rdrop={settings.optim.rdrop:g} compares two passes with different dropout, but the model has no "
        "dropout, so that both are equal. Set bridge.dropout=0.1, or optim.rdrop=0."
    )


def faults_of_dropout(settings: Config, model: Any) -> list[str]:
    """Return a message if R-Drop is set for a model that drops nothing."""
    from warmstart.model.call_checks import has_dropout

    return [_without_dropout(settings)] if settings.optim.rdrop > 0 and not has_dropout(model) else []


def not_predicted(settings: Config) -> list[str]:
    """Name the work of these options that ``task=check`` leaves out of its prediction."""
    found = ["the teacher"] if settings.optim.distill is not Distill.none else []
    return [*found, "the second pass of R-Drop"] if settings.optim.rdrop else found


@contextmanager
def _naming_the_teacher(given: str) -> Iterator[None]:
    """Let errors about the saved model name the option that was set."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace(f"ckpt={given}", f"optim.teacher={given}")) from error


def check_tokens(settings: Config, tokenizers: Any) -> None:
    """Check that teacher and student read and write the same tokens, if ``optim.distill=logits`` needs it.

    Args:
        settings: the config of the fit.
        tokenizers: the student's ``TokenizerPair``.

    Raises:
        UserError: a tokenizer, the end id or the marks of sentences differ, or the teacher selects sentences.
    """
    from warmstart.data.tokenization.contents import contents_of

    if settings.optim.distill is not Distill.logits:
        return
    given = str(settings.optim.teacher)
    with _naming_the_teacher(given):
        pair = SavedModel(given).tokenizers()
    otherwise = "Choose a teacher with the same tokenizers, or set optim.distill=beams."
    if pair.marks.labels:
        raise UserError(f"optim.teacher={given} selects sentences, and has no probabilities of tokens. {otherwise}")
    differences = [
        f"{role}: {len(theirs)} tokens, here {len(own)}"
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


def soft_targets_of(settings: Config, model: Any, tokenizers: Any) -> "SoftTargets | None":
    """Load the teacher whose logits a fit uses, and return the further terms of its loss; None if there are none.

    Args:
        settings: the config of the fit.
        model: the student.
        tokenizers: its ``TokenizerPair``.

    Raises:
        UserError: the teacher cannot be loaded or does not fit the student, or the student has no dropout for R-Drop.
    """
    optim = settings.optim
    if optim.distill is not Distill.logits and not optim.rdrop:
        return None
    from warmstart.model.soft_targets import SoftTargets

    if found := faults_of_dropout(settings, model):
        raise UserError(found[0])
    check_tokens(settings, tokenizers)
    teacher = None
    if optim.distill is Distill.logits:
        teacher = _loaded(settings).model
        _check_sizes(settings, model, teacher)
    return SoftTargets(teacher, optim.distill_weight, optim.distill_temperature, optim.rdrop)


def _loaded(settings: Config) -> Any:
    from warmstart.runs.load import refuse_nonfinite

    given = str(settings.optim.teacher)
    with _naming_the_teacher(given):
        trained = SavedModel(given).load()
        refuse_nonfinite(f"optim.teacher={given}", trained.model)
    return trained


def _check_sizes(settings: Config, model: Any, teacher: Any) -> None:
    from warmstart.model.submodel_config import maximum_positions

    given, data, found = settings.optim.teacher, settings.data, []
    sizes = [one.config.decoder.vocab_size for one in (teacher, model)]
    if sizes[0] != sizes[1]:
        found.append(f"its decoder has {sizes[0]} embeddings, here {sizes[1]}: set optim.distill=beams")
    lengths = {"encoder": ("data.max_source_length", data.max_source_length)}
    lengths["decoder"] = ("data.max_target_length", data.max_target_length)
    for role, (option, length) in lengths.items():
        room = maximum_positions(getattr(teacher.config, role))
        room = None if room is None else room - (len(teacher.config.prompt_ids or []) if role == "decoder" else 0)
        if room is not None and room < length:
            found.append(f"its {role} has {room} positions: set {option}={room} instead of {length}")
    if found:
        raise UserError(f"optim.teacher={given} does not fit this fit: {'; '.join(found)}.")


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
    with _naming_the_teacher(given):
        digest = SavedModel(given).digest
    if resume is not None and resume.config.get("optim", {}).get("teacher") == given:
        before = resume.hyper_parameters.get("teacher", digest)
        if before != digest:
            raise UserError(
                f"ckpt={resume.given} learned from optim.teacher={given} with other weights (SHA-256 {before[:12]}, "
                f"now {digest[:12]}). Restore them, or set ckpt=new to start over."
            )
    return {"teacher": digest}


def with_teachers_summaries(settings: Config, source: "Source") -> "Source":
    """Replace the training summaries by the teacher's (``optim.distill=beams``); other splits stay as they are.

    They are generated once and kept in the cache. Of several processes one generates while the others wait; an
    interrupted one resumes.

    Args:
        settings: the config of the fit; its ``generation`` group is the teacher's search.
        source: the texts.

    Raises:
        UserError: the teacher cannot be loaded, or its decoder does not allow the search.
    """
    from warmstart.data.build_once import build_once
    from warmstart.data.cleaning import CLEANING_VERSION

    if settings.optim.distill is not Distill.beams:
        return source
    given = str(settings.optim.teacher)
    with _naming_the_teacher(given):
        saved = SavedModel(given)
        recorded = saved.config
        reading = _reading(settings.data, recorded.get("data", {}))
        about = [
            *(FORMAT_VERSION, CLEANING_VERSION, saved.digest, saved.tokenizers().fingerprint()),
            *({name: getattr(reading, name) for name in _READING}, reading.evaluation_max_tokens),
            asdict(settings.generation),
            *(settings.seed if settings.generation.do_sample else None, source.split_fingerprint("train")),
        ]
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]
    folder = cache_root(settings.data.cache_dir) / "teacher_summaries" / key
    folder.parent.mkdir(parents=True, exist_ok=True)

    def build(partial: Path) -> None:
        summaries = _summaries(settings, reading, source, folder)
        lines = (json.dumps(summary) + "\n" for summary in summaries)
        (partial / _SUMMARIES).write_text("".join(lines), encoding="utf-8")

    text = (build_once(folder, build) / _SUMMARIES).read_text(encoding="utf-8")
    summaries = [json.loads(line) for line in text.splitlines()]
    if empty := sum(not summary for summary in summaries):
        _log.warning(
            "%d of %d training summaries of optim.teacher=%s are empty: this fit learns to write nothing for them.",
            *(empty, len(summaries), given),
        )
    return source.with_summaries("train", summaries)


def _reading(data: DataSettings, recorded: dict[str, Any]) -> DataSettings:
    """Return the settings of the fit's data, with those of the teacher's run on how a document is read."""
    taken = {name: recorded[name] for name in _READING if name in recorded}
    reading = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(data), taken))
    assert isinstance(reading, DataSettings)
    return reading


def _summaries(settings: Config, reading: DataSettings, source: "Source", folder: Path) -> list[str]:
    """Generate the teacher's summaries of the training documents."""
    import torch
    from rich.console import Console
    from rich.progress import Progress

    from warmstart import cpu
    from warmstart.data.cleaning import steps_named
    from warmstart.data.datamodule import SummarizationDataModule
    from warmstart.data.sources.base import CleanedSplit, Source
    from warmstart.evaluation.resumable import KeptSummaries
    from warmstart.evaluation.summarize import summarize_batches
    from warmstart.model.dtypes import computing_in
    from warmstart.runs.load import check_search
    from warmstart.runs.writer import Writer

    model, tokenizers, _ = _loaded(settings)
    check_search(replace(settings, decoder=replace(settings.decoder, name="of optim.teacher")), model)
    if torch.cuda.is_available() and settings.trainer.accelerator != "cpu":
        model.cuda()
    else:
        cpu.build()
    examples = source.split("train")
    documents = CleanedSplit(examples, range(len(examples)), steps_named(reading.clean), training=False)
    texts = Source({"train": documents}, name=source.name, report={}, steps=f"{reading.clean}")
    data = SummarizationDataModule(reading, tokenizers, seed=settings.seed, source=texts)
    kept = KeptSummaries(folder.with_suffix(".jsonl"))
    count = len(examples) - len(kept.done)
    _log.info("optim.teacher=%s summarizes %d training documents.", settings.optim.teacher, count)
    is_shown, found = settings.trainer.progress_bar, dict[int, str]()
    try:
        with (
            Progress(console=Console(stderr=True), transient=True, disable=not is_shown) as progress,
            computing_in(model, getattr(torch, settings.generation.dtype)),
        ):
            bar = progress.add_task("summaries of the teacher", total=count)
            found = kept.done | summarize_batches(
                model,
                data.eval_dataloader("train", done=kept.done),
                tokenizers,
                settings.generation,
                progress=lambda number: progress.advance(bar, number),
                kept=kept,
                seed=settings.seed,
            )
    finally:
        kept.close(complete=len(found) == len(examples))
    writer = Writer(model, tokenizers, replace(settings, data=reading))
    return [writer.restore_case(found[i], example.document) for i, example in enumerate(documents)]
