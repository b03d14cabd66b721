"""Train, test the best checkpoint (or not: ``evaluation.test=false``), export, and write what the run leaves.

python run.py encoder=bert decoder=gpt2
python run.py encoder=bert decoder=gpt2 name=mine     # the same again goes on with runs/mine where it was stopped
"""

import logging
import math
import os
import time
from pathlib import Path
from typing import Any

from warmstart.app.bounds import fault_of_warm_up
from warmstart.app.check import validate
from warmstart.app.errors import status_of
from warmstart.app.identity import config_hash, run_name
from warmstart.app.schema import Config, plain
from warmstart.atomic import write_text
from warmstart.errors import Left, UserError
from warmstart.model.settings import Weights
from warmstart.training.settings import TrainerSettings

_log = logging.getLogger(__name__)
UNFINISHED = "unfinished"  # in checkpoints/: the mark of the fit whose they are, until its result is written


def run(settings: Config, run_dir: Path) -> float:
    """Fit and test; returns the best validation score, which a search optimises: the test split must choose nothing.

    A failure leaves its own ``result.json``; one before anything is begun, of a mistyped word, not in the place of a
    complete run's.
    """
    from lightning.pytorch.utilities import rank_zero_only

    from warmstart.app.identity import write_failure
    from warmstart.evaluation.result import is_complete, set_result_aside
    from warmstart.training.rank_watch import rank_timeout, watched_ranks

    set_aside = rank_zero_only(set_result_aside)  # a rank that starts late would take away what another has said
    digest = config_hash(settings)
    try:
        validate(settings)
        resume = _checkpoint_to_resume(settings, run_dir, digest)
    except Exception as error:
        if not is_complete(run_dir):
            set_aside(run_dir)
            write_failure(settings, run_dir, error)
        raise
    set_aside(run_dir)
    try:
        with watched_ranks(rank_timeout(settings.trainer)):
            return _logged_fit(settings, run_dir, digest, resume)
    except Left as left:
        write_failure(settings, run_dir, left, "interrupted")
        raise
    except Exception as error:
        write_failure(settings, run_dir, error)
        raise


def _logged_fit(settings: Config, run_dir: Path, digest: str, resume: str | None) -> float:
    """The fit within its W&B run, which is there before anything that takes long or may fail is begun."""
    from warmstart.training.loggers import build_loggers, close_loggers

    tags = [f"encoder={settings.encoder.name}", f"decoder={settings.decoder.name}", f"data={settings.data.name}"]
    exit_code = 0
    loggers = build_loggers(
        settings.logger, run_dir, run_name=run_name(settings, run_dir), config=plain(settings), tags=tags
    )
    try:
        return _fit_and_test(settings, run_dir, digest, resume, loggers)
    except BaseException as error:
        exit_code = status_of(error)
        raise
    finally:
        close_loggers(exit_code)


def _fit_and_test(settings: Config, run_dir: Path, digest: str, resume: str | None, loggers: list[Any]) -> float:
    """The whole recipe."""
    import lightning as L
    import transformers

    from warmstart.app.evaluate import check_scripts, leave_untested, test
    from warmstart.data.datamodule import SummarizationDataModule
    from warmstart.evaluation.generation import generation_kwargs
    from warmstart.evaluation.rouge import rouge_scores
    from warmstart.model.compiling import compile_layers
    from warmstart.model.halves import build_model, parameter_counts
    from warmstart.training.allocator import keep_freed_memory
    from warmstart.training.callbacks import SampleTable, best_validation
    from warmstart.training.leaving import asked_to_leave
    from warmstart.training.loggers import log_parameters
    from warmstart.training.module import SummarizationModule
    from warmstart.training.ranks import SameOnAllRanks
    from warmstart.training.trainer import build_trainer, check_validations

    if settings.trainer.keep_freed_memory:
        keep_freed_memory()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    began = time.perf_counter()
    L.seed_everything(settings.seed, workers=True, verbose=False)

    source, tokenizers = _source_and_tokenizers(settings, resume)
    check_scripts(
        source,
        _scored_splits(settings),
        "To train without ROUGE, set evaluation.test=false trainer.validation_samples=0.",
    )
    data = SummarizationDataModule(settings.data, tokenizers, seed=settings.seed, source=source)
    data.prepare_data()
    data.setup("fit")
    ranks = settings.trainer.devices * settings.trainer.nodes
    batches = data.batches_in_epoch(ranks)
    check_validations(settings.trainer, batches, len(data.examples("validation")))
    model = build_model(
        settings.encoder,
        settings.decoder,
        settings.bridge,
        special_ids=tokenizers.special_ids(),
        encoder_pad_id=tokenizers.source_pad_id,
        encoder_vocab_size=len(tokenizers.source),
        decoder_vocab_size=len(tokenizers.target),
    )
    if settings.trainer.checkpoint_activations:
        model.gradient_checkpointing_enable()
    if settings.trainer.compile:
        compile_layers(model)

    taken, epoch, batch = _place(data, ranks, resume)
    total_steps = _total_steps(settings.trainer, batches, taken, epoch, batch)
    if resume is not None and taken >= total_steps and not Path(resume).resolve().is_relative_to(run_dir.resolve()):
        raise UserError(
            f"ckpt={settings.ckpt} has taken {taken} steps in {epoch} epochs, and this fit ends there: nothing would "
            "be trained. Set trainer.max_epochs or trainer.max_steps higher; both count from the checkpoint's first."
        )
    if settings.bridge.warmup_steps >= total_steps:
        raise UserError(
            f"bridge.warmup_steps={settings.bridge.warmup_steps}, but the fit takes {total_steps} optimizer steps: the "
            "halves would never train. Set fewer, or bridge.freeze=both to mean that."
        )
    if fault := fault_of_warm_up(settings, total_steps):
        raise UserError(fault)

    def score(predictions: list[str], references: list[str]) -> dict[str, float]:
        return {kind: float(values.mean()) for kind, values in rouge_scores(predictions, references).items()}

    module = SummarizationModule(
        model,
        tokenizers,
        settings.optim,
        generation_kwargs(settings.generation),
        total_steps=total_steps,
        hparams={
            "model_config": model.config.to_dict(),
            "config": plain(settings),
            "config_hash": digest,
            "vocabularies": tokenizers.vocabularies(),
            "parameters": parameter_counts(model),  # a loaded model no longer knows which of its values are new
        },
        validation_samples=settings.trainer.validation_samples,
        score=score,
        log_every=settings.trainer.log_every,
        thaw_after=settings.bridge.warmup_steps,
        seed=settings.seed,
        skip_limit=settings.trainer.skip_limit,
    )
    log_parameters(loggers, parameter_counts(model))
    inputs = {"config": digest, "tokenizers": tokenizers.fingerprint(), "data": source.fingerprint()}
    callbacks = [SameOnAllRanks(**inputs), SampleTable(run_dir, settings.logger.samples)]
    trainer = build_trainer(settings.trainer, run_dir, loggers, callbacks)
    if trainer.is_global_zero:
        _begin(run_dir / "checkpoints", _mark(settings, run_dir, digest), resume)
        tokenizers.keep(run_dir / "checkpoints" / "tokenizers")
    model.train()  # Lightning keeps the mode it finds, and loading leaves evaluation mode: no dropout
    try:
        trainer.fit(module, datamodule=data, ckpt_path=resume)
    except SystemExit as end:  # what Lightning makes of the second Ctrl-C
        raise KeyboardInterrupt from end
    except Exception as error:
        if (asked_by := asked_to_leave(trainer)) is not None:
            raise Left(asked_by, None) from error
        raise
    best = run_dir / "checkpoints" / "best.ckpt"
    # Stopped before the first validation: the last weights are all there is. Every rank takes part in saving.
    if trainer.strategy.broadcast(not best.exists()):
        trainer.save_checkpoint(best)
    seconds = {"fit": time.perf_counter() - began}
    validation = best_validation(trainer)
    facts: dict[str, Any] = {
        "throughput": module.throughput(),
        "parameters": parameter_counts(model),
        "seconds": seconds,
        "steps": trainer.global_step,
        "resumed": resume is not None,
        "rows": data.row_counts(),
        "validation": validation,
    }
    if settings.evaluation.test:
        test(settings, run_dir, str(best), data, facts, began, loggers, None)
    else:
        leave_untested(settings, run_dir, str(best), facts, began, loggers)
    if trainer.is_global_zero:
        (run_dir / "checkpoints" / UNFINISHED).unlink()
    return validation["best"]


def _scored_splits(settings: Config) -> list[str]:
    """The splits whose references ROUGE is measured against."""
    from warmstart.training.callbacks import validates

    sampled = settings.trainer.validation_samples > 0 and validates(settings.trainer)
    return ["validation"] * sampled + ["test"] * settings.evaluation.test


def _place(data: Any, ranks: int, resume: str | None) -> tuple[int, int, int]:
    """Optimizer steps that are taken already, and epoch and batch that come next."""
    from warmstart.training.checkpoint_io import AtomicCheckpointIO

    if resume is None:
        return 0, 0, 0
    checkpoint = AtomicCheckpointIO().load_checkpoint(resume, mmap=True)
    return checkpoint["global_step"], *data.place_of(checkpoint, ranks)


def _total_steps(trainer: TrainerSettings, batches: int, taken: int, epoch: int, batch: int) -> int:
    """Optimizer steps of the whole fit. Those that are taken may have been of other batches, or of other ranks."""
    steps = taken + math.ceil(batches / trainer.accumulate) * (trainer.max_epochs - epoch) - batch // trainer.accumulate
    return min(steps, trainer.max_steps) if trainer.max_steps > 0 else steps


def _mark(settings: Config, run_dir: Path, digest: str) -> str:
    """Which fit it is: the same for the same command again, also where that begins from another run's checkpoint."""
    if settings.ckpt in (None, "last", "new"):
        return digest
    given = Path(settings.ckpt).resolve()
    return digest if given.is_relative_to(run_dir.resolve()) else f"{digest} from {given}"


def _begin(folder: Path, mark: str, resume: str | None) -> None:
    """Note whose checkpoints these are; a fit that goes on with none of them first clears away what another left."""
    from warmstart.training.callbacks import SAMPLES
    from warmstart.training.checkpoint_io import SUMS
    from warmstart.training.loss_watch import NOTES
    from warmstart.training.metrics_csv import FILE

    if resume is None or Path(resume).resolve().parent != folder.resolve():
        for old in (*folder.glob("*.ckpt"), folder / SUMS, *(folder.parent / name for name in (NOTES, FILE, SAMPLES))):
            old.unlink(missing_ok=True)
    for left in folder.glob(".*.tmp"):  # a process that was killed while it saved
        left.unlink(missing_ok=True)
    write_text(folder / UNFINISHED, mark + "\n")


def _checkpoint_to_resume(settings: Config, run_dir: Path, digest: str) -> str | None:
    """What ``ckpt`` says; before that the newest checkpoint of this very fit, where it was begun and not finished."""
    from warmstart.evaluation.result import is_complete, read_result
    from warmstart.training.checkpoint_io import newest_sound

    folder = run_dir / "checkpoints"
    of, mark = folder / UNFINISHED, _mark(settings, run_dir, digest)
    begun = of.read_text().strip() if of.exists() else None
    if settings.ckpt == "new":
        back_from_queue = int(os.environ.get("SLURM_RESTART_COUNT") or 0) > 0  # it may have begun anew already
        saved = newest_sound(folder) if back_from_queue and begun == mark else None
        return saved if saved is None else str(saved)
    same = begun == mark and (settings.ckpt is None or mark != digest)
    asked_about = begun is not None and settings.ckpt is None
    of_another = is_complete(run_dir) and read_result(run_dir).get("config_hash") != digest
    if settings.ckpt is None and of_another and newest_sound(folder) is not None:
        raise UserError(
            f"{run_dir} holds a complete run of another config, whose checkpoints this one would replace. Set "
            "ckpt=last to go on from it, ckpt=new to throw it away, or another name=."
        )
    if (same or asked_about) and (path := newest_sound(folder)) is not None:
        if not same:
            raise UserError(
                f"{run_dir} holds an unfinished run of another config, or from another checkpoint. Set ckpt=last to go "
                "on with it as it is asked for now, ckpt=new to throw it away, or another name=."
            )
        _log.info("Going on from %s; ckpt=new begins anew.", path)
        return str(path)
    if settings.ckpt is None:
        return None
    given = run_dir if settings.ckpt == "last" else Path(settings.ckpt)
    found = newest_sound(given / "checkpoints") if given.is_dir() else given
    if found is None or not found.is_file():
        missing = f"{given} holds no checkpoints/last.ckpt" if given.is_dir() else f"{given} is not there"
        way_on = "Set name= to the run to resume" if settings.ckpt == "last" else "Name a run directory or a .ckpt file"
        raise UserError(f"ckpt={settings.ckpt} was asked for, but {missing}. {way_on}.")
    return str(found)


def _source_and_tokenizers(settings: Config, resume: str | None) -> tuple[Any, Any]:
    """Texts and tokenizers; one message names all that is missing where the hub cannot be reached.

    A fit that resumes takes the tokenizers of its checkpoint: those that the config names may be others by now, such as
    one that is trained on texts which have changed since.
    """
    from warmstart.app.loading import open_checkpoint, tokenizers_of
    from warmstart.data.hub import Unreachable
    from warmstart.data.sources import SPLITS, load_source
    from warmstart.data.tokenizers import TokenizerPair, load_tokenizer

    splits = [split for split in SPLITS if split != "test" or settings.evaluation.test]
    if resume is not None:
        return load_source(settings.data, splits), tokenizers_of(*open_checkpoint(resume))
    missing: list[str] = []
    source: Any = None
    try:
        source = load_source(settings.data, splits)
    except Unreachable as error:
        missing += error.what
    tokenizers = []
    for half, role in ((settings.encoder, "encoder"), (settings.decoder, "decoder")):
        if source is None and half.weights is Weights.random:
            continue  # its tokenizer may have to be trained on the texts
        try:
            tokenizers.append(load_tokenizer(half, role, lambda: _texts(source)))
        except Unreachable as error:
            missing += error.what
    if missing:
        raise Unreachable(*missing)
    return source, TokenizerPair(*tokenizers)


def _texts(source: Any) -> Any:
    for example in source.split("train"):
        yield example.document
        yield example.summary
