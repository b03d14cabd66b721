"""Generate the summaries of a teacher, on which a fit trains instead of the data set's (``optim.distill=beams``)."""

import hashlib
import json
import logging
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from warmstart.cache import cache_root
from warmstart.config.data import DataSettings
from warmstart.config.model import NO_ENCODER
from warmstart.config.schema import Config
from warmstart.config.training import Distill
from warmstart.training.distillation import config_of, load_teacher, longest_source, teacher_of

if TYPE_CHECKING:
    import torch

    from warmstart.data.sources.base import Source
    from warmstart.evaluation.resumable import KeptSummaries

FORMAT_VERSION = 1  # of the summaries in the cache
_SUMMARIES = "summaries.jsonl"
# How the teacher was trained to read a document: taken from its run.
_READING = ("max_source_length", "source_windows", "window_overlap", "truncation", "source_form", "clean", "language")
_log = logging.getLogger(__name__)


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
    from warmstart.evaluation.resumable import KeptSummaries

    if settings.optim.distill is not Distill.beams:
        return source
    saved = teacher_of(settings)
    reading = _reading(settings, saved.config.get("data", {}), config_of(saved))
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
        kept, is_written = KeptSummaries(folder.with_suffix(".jsonl")), False
        try:
            summaries = _summaries(settings, reading, source, kept)
            lines = (json.dumps(summary) + "\n" for summary in summaries)
            (partial / _SUMMARIES).write_text("".join(lines), encoding="utf-8")
            is_written = True
        finally:
            kept.close(complete=is_written)

    text = (build_once(folder, build) / _SUMMARIES).read_text(encoding="utf-8")
    summaries = [json.loads(line) for line in text.splitlines()]
    if empty := sum(not summary for summary in summaries):
        _log.warning(
            "%d of %d training summaries of %s are empty: the student learns to generate empty summaries for them.",
            *(empty, len(summaries), saved.named),
        )
    return source.with_summaries("train", summaries)


def _reading(settings: Config, recorded: dict[str, Any], config: Any) -> DataSettings:
    """Return the settings of the fit's data, with those of the teacher's run on how a document is read.

    A setting that is not recorded, as in an export of ``save_pretrained``, is the fit's, limited to what the teacher's
    positions allow.
    """
    taken = {name: recorded[name] for name in _READING if name in recorded}
    reading = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(settings.data), taken))
    assert isinstance(reading, DataSettings)
    if "max_source_length" not in taken:
        longest = longest_source(config, settings.generation.max_new_tokens)
        reading.max_source_length = min(reading.max_source_length, longest or reading.max_source_length)
    if "source_windows" not in taken and config.encoder.model_type == NO_ENCODER:
        reading.source_windows, reading.window_overlap = 1, 0
    return reading


def _device(settings: Config) -> "torch.device":
    """Return where the teacher generates; each rank of a machine has its own GPU."""
    import torch

    if not torch.cuda.is_available() or settings.trainer.accelerator == "cpu":
        return torch.device("cpu")
    # Neither Lightning's strategy nor a process group exists before the fit.
    rank = int(os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or 0)
    return torch.device("cuda", rank % torch.cuda.device_count())


def _summaries(settings: Config, reading: DataSettings, source: "Source", kept: "KeptSummaries") -> list[str]:
    """Generate the teacher's summaries of the training documents; the global random state stays as it is."""
    import torch

    device = _device(settings)
    # A fit that finds the summaries in the cache draws the same new parameters.
    with torch.random.fork_rng([device.index] if device.type == "cuda" else []):
        found = _generated(settings, reading, source, kept, device)
    torch.cuda.empty_cache()
    return found


def _generated(
    settings: Config, reading: DataSettings, source: "Source", kept: "KeptSummaries", device: "torch.device"
) -> list[str]:
    import torch
    from rich.console import Console
    from rich.progress import Progress

    from warmstart import cpu
    from warmstart.data.cleaning import CLEANING_VERSION, steps_named
    from warmstart.data.datamodule import SummarizationDataModule
    from warmstart.data.sources.base import CleanedSplit, Source
    from warmstart.evaluation.summarize import summarize_batches
    from warmstart.model.dtypes import computing_in
    from warmstart.runs.load import check_search
    from warmstart.runs.writer import Writer

    model, tokenizers, _ = load_teacher(settings)
    check_search(replace(settings, decoder=replace(settings.decoder, name="of optim.teacher")), model)
    model.to(device)
    if device.type == "cpu":
        cpu.build()
    examples = source.split("train")
    documents = CleanedSplit(examples, range(len(examples)), steps_named(reading.clean), training=False)
    # The documents also depend on the student's cleaning, which is part of the fingerprint.
    steps = f"{CLEANING_VERSION} {reading.clean} {source.split_fingerprint('train')}"
    texts = Source({"train": documents}, name=source.name, report={}, steps=steps)
    data = SummarizationDataModule(reading, tokenizers, seed=settings.seed, source=texts)
    count = len(examples) - len(kept.done)
    _log.info("optim.teacher=%s summarizes %d training documents.", settings.optim.teacher, count)
    with (
        Progress(console=Console(stderr=True), transient=True, disable=not settings.trainer.progress_bar) as progress,
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
    model.cpu()
    writer = Writer(model, tokenizers, replace(settings, data=reading))
    return [writer.restore_case(found[i], example.document) for i, example in enumerate(documents)]
