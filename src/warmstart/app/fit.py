"""Train, test the best checkpoint, export, and write what the run leaves.

python run.py encoder=bert decoder=gpt2
python run.py encoder=bert decoder=gpt2 name=mine     # the same again goes on with runs/mine where it was stopped
"""

import logging
import math
import time
from pathlib import Path
from typing import Any

from warmstart.app.bounds import fault_of_warm_up
from warmstart.app.check import validate
from warmstart.app.identity import config_hash
from warmstart.app.schema import Config, plain
from warmstart.atomic import write_text
from warmstart.errors import Left, UserError
from warmstart.model.settings import Weights

_log = logging.getLogger(__name__)
UNFINISHED = "unfinished"  # in checkpoints/: the hash of the config whose fit they are, until its result is written


def run(settings: Config, run_dir: Path) -> float:
    """Fit and test; returns the best validation score, which a search optimises: the test split must choose nothing.

    A failure leaves its own ``result.json``.
    """
    from warmstart.app.identity import write_failure
    from warmstart.evaluation.result import set_result_aside
    from warmstart.training.rank_watch import watched_ranks

    set_result_aside(run_dir)
    try:
        with watched_ranks():
            return _fit_and_test(settings, run_dir)
    except Left as left:
        write_failure(settings, run_dir, left, "interrupted")
        raise
    except Exception as error:
        write_failure(settings, run_dir, error)
        raise


def _fit_and_test(settings: Config, run_dir: Path) -> float:
    """The whole recipe."""
    import lightning as L
    import transformers

    from warmstart.app.evaluate import test
    from warmstart.data.datamodule import SummarizationDataModule
    from warmstart.evaluation.generation import generation_kwargs
    from warmstart.evaluation.rouge import rouge_scores
    from warmstart.model.compiling import compile_layers
    from warmstart.model.halves import build_model, parameter_counts
    from warmstart.training.allocator import keep_freed_memory
    from warmstart.training.callbacks import SampleTable, best_validation
    from warmstart.training.dashboard import failing_alone, let_fail_alone
    from warmstart.training.leaving import asked_to_leave
    from warmstart.training.loggers import build_loggers, close_loggers
    from warmstart.training.module import SummarizationModule
    from warmstart.training.ranks import OneConfig
    from warmstart.training.trainer import build_trainer, check_validations

    validate(settings)
    if settings.trainer.keep_freed_memory:
        keep_freed_memory()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    digest = config_hash(settings)
    resume = _checkpoint_to_resume(settings, run_dir, digest)
    began = time.perf_counter()
    L.seed_everything(settings.seed, workers=True, verbose=False)

    source, tokenizers = _source_and_tokenizers(settings)
    data = SummarizationDataModule(settings.data, tokenizers, seed=settings.seed, source=source)
    data.prepare_data()
    data.setup("fit")
    batches = data.batches_in_epoch(settings.trainer.devices * settings.trainer.nodes)
    check_validations(settings.trainer, batches)
    model = build_model(
        settings.encoder,
        settings.decoder,
        settings.bridge,
        special_ids=tokenizers.special_ids(),
        encoder_vocab_size=len(tokenizers.source),
        decoder_vocab_size=len(tokenizers.target),
    )
    if settings.trainer.checkpoint_activations:
        model.gradient_checkpointing_enable()
    if settings.trainer.compile:
        compile_layers(model)

    total_steps = math.ceil(batches / settings.trainer.accumulate) * settings.trainer.max_epochs
    if settings.trainer.max_steps > 0:
        total_steps = min(total_steps, settings.trainer.max_steps)
    if settings.bridge.warmup_steps >= total_steps:
        raise UserError(
            f"bridge.warmup_steps={settings.bridge.warmup_steps}, but the fit takes {total_steps} optimizer steps: the "
            "halves would never train. Set fewer, or bridge.freeze=both to mean that."
        )
    if fault := fault_of_warm_up(settings, total_steps):
        raise UserError(fault)

    def score(predictions: list[str], references: list[str]) -> dict[str, float]:
        return {kind: float(values.mean()) for kind, values in rouge_scores(predictions, references).items()}

    config = plain(settings)
    module = SummarizationModule(
        model,
        tokenizers,
        settings.optim,
        generation_kwargs(settings.generation),
        total_steps=total_steps,
        hparams={"model_config": model.config.to_dict(), "config": config},
        validation_samples=settings.trainer.validation_samples,
        score=score,
        log_every=settings.trainer.log_every,
        thaw_after=settings.bridge.warmup_steps,
        seed=settings.seed,
        skip_limit=settings.trainer.skip_limit,
    )
    tags = [f"encoder={settings.encoder.name}", f"decoder={settings.decoder.name}", f"data={settings.data.name}"]
    exit_code = 1
    known = config | {"parameters": parameter_counts(model)}
    loggers = build_loggers(settings.logger, run_dir, run_name=run_dir.name, config=known, tags=tags)
    let_fail_alone(loggers)
    try:
        callbacks = [OneConfig(digest), SampleTable(run_dir, settings.logger.samples)]
        trainer = build_trainer(settings.trainer, run_dir, loggers, callbacks)
        if trainer.is_global_zero:
            _begin(run_dir / "checkpoints", digest, anew=resume is None)
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
        test(settings, run_dir, str(best), data, facts, began, loggers)
        if trainer.is_global_zero:
            (run_dir / "checkpoints" / UNFINISHED).unlink()
        exit_code = 0
        return validation["best"]
    except Left as left:
        exit_code = left.status
        raise
    finally:
        with failing_alone():
            close_loggers(exit_code)


def _begin(folder: Path, digest: str, *, anew: bool) -> None:
    """Note whose checkpoints these are; before a new fit, clear away those of another."""
    from warmstart.training.checkpoint_io import SUMS
    from warmstart.training.loss_watch import NOTES

    if anew:
        for old in (*folder.glob("*.ckpt"), folder / SUMS, folder.parent / NOTES):
            old.unlink(missing_ok=True)
    for left in folder.glob(".*.tmp"):  # a process that was killed while it saved
        left.unlink(missing_ok=True)
    write_text(folder / UNFINISHED, digest + "\n")


def _checkpoint_to_resume(settings: Config, run_dir: Path, digest: str) -> str | None:
    """What ``ckpt`` says; where it says nothing, the newest checkpoint of this very config that was not finished."""
    from warmstart.training.checkpoint_io import newest_sound

    folder = run_dir / "checkpoints"
    if settings.ckpt == "new":
        return None
    if settings.ckpt is None:
        of = folder / UNFINISHED
        if not of.exists() or (path := newest_sound(folder)) is None:
            return None
        if of.read_text().strip() != digest:
            raise UserError(
                f"{run_dir} holds an unfinished run of another config. Set ckpt=last to go on with it as "
                "it is asked for now, ckpt=new to throw it away, or another name=."
            )
        _log.info("Going on from %s; ckpt=new begins anew.", path)
        return str(path)
    path = newest_sound(folder) or folder / "last.ckpt" if settings.ckpt == "last" else Path(settings.ckpt)
    if not path.is_file():
        raise UserError(f"ckpt={settings.ckpt} was asked for, but {path} is not there. Set name= to the run to resume.")
    return str(path)


def _source_and_tokenizers(settings: Config) -> tuple[Any, Any]:
    """Texts and tokenizers; what a missing hub withholds of both is said in one message."""
    from warmstart.data.hub import Unreachable
    from warmstart.data.sources import load_source
    from warmstart.data.tokenizers import TokenizerPair, load_tokenizer

    missing: list[str] = []
    source: Any = None
    try:
        source = load_source(settings.data)
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
