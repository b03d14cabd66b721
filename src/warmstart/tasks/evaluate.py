"""Evaluate a trained model on the test split: generate summaries, score them, and write result.json.

python run.py task=evaluate ckpt=runs/demo
python run.py task=evaluate ckpt=runs/demo evaluation.test=false     # scores the validation split instead
python run.py task=evaluate ckpt=runs/demo data.path=other.csv     # scores all rows of another file
python run.py task=evaluate ckpt=runs/demo trainer=ddp trainer.devices=8
python run.py task=evaluate ckpt=runs/demo logger=wandb     # logs to the W&B run of that fit

Summaries are scored by ``evaluation.metrics`` and compared with baselines and controls. Several ranks share the
batches, which are the same for any number of ranks; rank 0 scores. After an interruption the same command resumes:
finished summaries are kept in the cache.
"""

import logging
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from warmstart.cache import cache_root
from warmstart.config.metrics import primary_of
from warmstart.config.schema import Config
from warmstart.errors import UserError
from warmstart.printing import say
from warmstart.runs.load import check_search, refuse_nonfinite
from warmstart.runs.run_dir import RunDir
from warmstart.runs.saved_model import SavedModel, Trained
from warmstart.runs.scored_data import check_scripts, data_to_score
from warmstart.tasks.check import validate_numbers
from warmstart.tasks.outcome import Evaluation, say_untested, write_outcome

_OTHERWISE = "Or use task=summarize, and score the summaries with another tool."
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Ready:
    """A model on its device, and the summaries of an interrupted evaluation."""

    trained: Trained
    kept: Any
    """This rank's ``KeptSummaries``."""
    done: dict[int, str]
    """Summaries of all ranks, by example index."""


@dataclass(frozen=True)
class _Generated:
    """The output of all ranks."""

    predictions: list[str]
    likelihoods: Any
    alone: str | None
    """The text that the decoder generates without a document; None without controls."""
    counts: dict[str, int]
    peak_memory_bytes: int


def run(settings: Config, folder: Path, saved: SavedModel | None = None) -> float:
    """Evaluate ``ckpt`` on a split of ``data`` into the run directory.

    It is the test split, unless the command line sets ``evaluation.test=false``.

    Args:
        settings: the config of the task.
        folder: the run directory.
        saved: the model that ``ckpt`` names, if the caller has opened it.

    Returns:
        The score that verdicts use, by default ROUGE-1; NaN on every rank but rank 0.

    Raises:
        UserError: ``ckpt`` cannot be loaded, or it cannot be evaluated with these settings.
    """
    import transformers

    from warmstart.data.datamodule import SummarizationDataModule
    from warmstart.training.distributed.rank_watch import rank_timeout, watched_ranks
    from warmstart.training.distributed.start_ranks import start_ranks

    run_dir = RunDir(folder)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if settings.ckpt is None:
        raise UserError("task=evaluate needs ckpt=: a run directory, a .ckpt file or an exported folder.")
    validate_numbers(settings)
    _refuse_job_of_sweep(run_dir)
    began, named = time.perf_counter(), _named()
    # Only if the command line says so: the recorded settings of a fit that left out the test split say so, too.
    asked = {"evaluation.test", "evaluation"} & named
    split = "validation" if asked and not settings.evaluation.test else "test"
    with watched_ranks(rank_timeout(settings.trainer)):
        start_ranks(settings.trainer, named)
        saved = saved or SavedModel(settings.ckpt)
        trained = saved.load()
        check_search(settings, trained.model)
        settings, source, training = data_to_score(settings, saved, named, split)
        data = SummarizationDataModule(settings.data, trained.tokenizers, seed=settings.seed, source=source)
        check_scripts(data.source, [split], _OTHERWISE, settings.data.language)
        data.prepare_data()
        data.setup("test" if split == "test" else "validate")
        facts = {"rows": data.row_counts()}
        inputs = Evaluation(
            settings, run_dir, saved, data, began, facts, trained=trained, training=training, split=split
        )
        found = score(inputs)
        if settings.logger.wandb and any(word.split(".")[0] == "logger" for word in named):
            _log_to_wandb(settings, run_dir, saved)
        return found


def _named() -> set[str]:
    """Return the keys that the command line sets; other values may come from the run."""
    words = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    return {word.lstrip("+").partition("=")[0] for word in words}


def _log_to_wandb(settings: Config, run_dir: RunDir, saved: SavedModel) -> None:
    """Log the evaluation to W&B.

    It goes to the fit's run if it evaluates best.ckpt with the fit's settings. Otherwise its scores would pass for the
    fit's own, so it gets a new run.
    """
    from warmstart.collectives import rank_and_world_size
    from warmstart.runs.identity import config_hash, config_hash_1
    from warmstart.training.loggers.wandb import log_evaluation

    if rank_and_world_size()[0] > 0:
        return
    logger, fit = settings.logger, None
    hashes = (config_hash(settings), config_hash_1(settings) or "")
    is_best = not saved.is_export and saved.file == saved.checkpoints.best
    if is_best and saved.hyper_parameters.get("config_hash") in hashes:
        fit, of_fit = saved.folder, saved.config["logger"]
        logger = replace(logger, project=of_fit["project"], entity=of_fit["entity"])
    log_evaluation(logger, run_dir.path, fit, run_dir.read_result())


def _refuse_job_of_sweep(run_dir: RunDir) -> None:
    """Raise an error if ``run_dir`` holds a fit of a sweep: the sweep reads that fit's result."""
    if run_dir.is_job_of_sweep:
        raise UserError(
            f"{run_dir.path} is a job of a sweep, and the evaluation would replace the result of its fit, which the "
            "sweep needs. Set another name= for the evaluation."
        )


def score(evaluation: Evaluation) -> float:
    """Summarise the split, score it, and write predictions and result; export a fit.

    Every rank has to call this.

    Returns:
        The score that verdicts use, by default ROUGE-1; NaN on every rank but rank 0.
    """
    from warmstart import cpu
    from warmstart.tasks.closing import print_outcome

    settings, split = evaluation.settings, evaluation.split
    if settings.trainer.keep_freed_memory:
        cpu.keep_freed_memory()
    ready = _load(evaluation)
    began = time.perf_counter()
    generated = _generate(evaluation, ready)
    if generated is None:
        ready.kept.close(complete=False)  # rank 0 deletes all ranks' files once its result is written
        return math.nan
    judgement = _judge(evaluation, generated)
    scored = {
        "metrics": judgement.metrics,
        "baselines": judgement.baselines,
        "controls": judgement.controls,
        "signatures": judgement.signatures,
        "metrics_left_out": judgement.left_out,
        "summaries": generated.counts,
        "peak_memory_bytes": generated.peak_memory_bytes,
    }
    seconds = {split: time.perf_counter() - began}
    looks = write_outcome(evaluation, ready.trained, scored, seconds, _rows(evaluation, generated, judgement))
    ready.kept.close(complete=True)
    examples, lower_case = evaluation.data.examples(split), ready.trained.tokenizers.writes_lower_case
    if note := evaluation.facts.get("ended_early"):
        say(note)
    if evaluation.prints:
        print_outcome(settings, evaluation.run_dir, judgement, examples, generated.predictions, lower_case, looks)
    if split == "validation" and evaluation.is_of_fit:
        say_untested(evaluation)
    return float(judgement.metrics[f"{split}/{primary_of(judgement.signatures)}"])


def _load(evaluation: Evaluation) -> _Ready:
    """Load the model to its device, and the summaries that are already done."""
    import torch

    from warmstart import cpu
    from warmstart.collectives import failing_together, of_all_ranks, rank_and_world_size
    from warmstart.evaluation.resumable import KeptSummaries, summaries_key

    settings, data = evaluation.settings, evaluation.data
    with failing_together():
        trained = evaluation.trained or evaluation.saved.load()
        refuse_nonfinite(f"ckpt={evaluation.saved.given}", trained.model)
        texts = [data.tokenized(evaluation.split).folder.name, data.settings.evaluation_max_tokens]
        search = [asdict(settings.generation), settings.seed if settings.generation.do_sample else None]
        key = summaries_key(trained.model, trained.tokenizers, texts, search)
        if torch.cuda.is_available() and settings.trainer.accelerator != "cpu":
            trained.model.cuda()
        else:
            cpu.build()
        folder = cache_root(data.settings.cache_dir) / "summaries"
        kept = KeptSummaries(folder / f"{key}.jsonl", rank_and_world_size()[0])
    done: dict[int, str] = {}
    for of_rank in of_all_ranks(kept.done):
        done |= of_rank
    if done:
        _log.info("Resuming an interrupted evaluation: %d summaries are done.", len(done))
    return _Ready(trained, kept, done)


def _generate(evaluation: Evaluation, ready: _Ready) -> _Generated | None:
    """Summarise this rank's share and measure likelihoods; rank 0 returns the output of all ranks, others None."""
    import torch
    from rich.console import Console
    from rich.progress import Progress

    from warmstart.collectives import failing_together, of_all_ranks, rank_and_world_size
    from warmstart.evaluation.likelihood import in_order, likelihoods
    from warmstart.evaluation.summarize import generation_kwargs, summarize_batches
    from warmstart.model.dtypes import computing_in
    from warmstart.seeding import seed_of
    from warmstart.training.throughput import peak_memory_bytes

    settings, data, split = evaluation.settings, evaluation.data, evaluation.split
    model, tokenizers, _ = ready.trained
    rank, ranks = rank_and_world_size()
    dtype = getattr(torch, settings.generation.dtype)
    count, earlier = len(data.examples(split)), len(ready.done)
    shown = settings.trainer.progress_bar and rank == 0
    with failing_together(), Progress(console=Console(stderr=True), transient=True, disable=not shown) as progress:
        bar = progress.add_task(f"summarizing the {split} split", total=math.ceil((count - earlier) / ranks))
        with computing_in(model, dtype):
            summaries = summarize_batches(
                model,
                data.eval_dataloader(split, done=ready.done, rank=rank, world_size=ranks),
                tokenizers,
                settings.generation,
                progress=lambda n: progress.advance(bar, n),
                kept=ready.kept,
                seed=settings.seed,
            )
        judged: dict[str, Any] = {}
        if settings.evaluation.control_samples != 0:
            judged = likelihoods(model, data, split, seed=settings.seed, rank=rank, world_size=ranks)
    shares = of_all_ranks((summaries, judged, peak_memory_bytes(model.device)))
    if rank > 0:
        return None
    done = dict(ready.done)
    for of_rank, _, _ in shares:
        done |= of_rank
    likely, alone = None, None
    if settings.evaluation.control_samples != 0:
        likely = in_order(of_rank for _, of_rank, _ in shares)
        torch.manual_seed(seed_of(settings.seed, count))  # as for one more example, if the search samples
        with computing_in(model, dtype), torch.inference_mode():
            ids = model.generate_alone(**generation_kwargs(settings.generation, tokenizers))
            (alone,) = tokenizers.decode(ids[:, model.start_length :])
    return _Generated(
        predictions=[done[i] for i in range(count)],
        likelihoods=likely,
        alone=alone,
        counts={"generated": sum(len(of_rank) for of_rank, _, _ in shares), "from_an_interrupted_run": earlier},
        peak_memory_bytes=max(peak for _, _, peak in shares),
    )


def _judge(evaluation: Evaluation, generated: _Generated) -> Any:
    """Score the summaries, the baselines and the controls."""
    from warmstart.data.sources.base import originals
    from warmstart.evaluation.judgement import judge
    from warmstart.evaluation.likelihood import OWN, bits_per_byte

    settings, examples = evaluation.settings, evaluation.data.examples(evaluation.split)
    training = originals(evaluation.data.examples("train")) if evaluation.training is None else evaluation.training
    references, bits = [example.summary for example in examples], None
    tokenizers = evaluation.data.tokenizers
    if generated.likelihoods is not None and not tokenizers.marks.labels:  # those are of sentences, not of the text
        rows = evaluation.data.tokenized(evaluation.split)
        texts = tokenizers.decode([rows[i][2] for i in range(len(rows))])
        bits = bits_per_byte(generated.likelihoods[OWN], rows.target_lengths, texts, references)
    return judge(
        generated.predictions,
        references,
        [example.document for example in examples],
        settings.evaluation,
        settings.seed,
        baselines=settings.data.baselines,
        training=training,
        likelihoods=generated.likelihoods,
        bits_per_byte=bits,
        alone=generated.alone,
        language=settings.data.language,
        split=evaluation.split,
    )


def _rows(evaluation: Evaluation, generated: _Generated, judgement: Any) -> Iterator[dict[str, Any]]:
    """Yield the rows of ``predictions.jsonl``; a reference whose tokens lose a part of it has no bits per byte."""
    from warmstart.evaluation.likelihood import BITS_PER_BYTE

    examples = evaluation.data.examples(evaluation.split)
    for i, (example, prediction) in enumerate(zip(examples, generated.predictions, strict=True)):
        yield {
            "id": example.id,
            "document": example.document,
            "reference": example.summary,
            "prediction": prediction,
            **({"baselines": {name: texts[i] for name, texts in judgement.texts.items()}} if judgement.texts else {}),
            **{
                kind: round(float(values[i]), 4)
                for kind, values in judgement.per_example.items()
                if kind != BITS_PER_BYTE or not math.isnan(values[i])
            },
        }
