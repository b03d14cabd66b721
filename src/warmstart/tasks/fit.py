"""Train a model, evaluate its best checkpoint on the test split, export it, and write the result.

python run.py encoder=bert decoder=gpt2
python run.py encoder=bert decoder=gpt2 name=mine     # resumes runs/mine if it was interrupted

``evaluation.test=false`` scores the validation split instead. A complete run is not repeated.
"""

import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmstart.config.bounds import fault_of_warm_up
from warmstart.config.model import Weights
from warmstart.config.schema import Config, plain, tokenized_submodels
from warmstart.errors import Interrupted, UserError
from warmstart.runs.explain import status_of
from warmstart.runs.identity import config_hash, config_hash_in, run_name
from warmstart.runs.resuming import begin, check_nothing_left, checkpoint_to_resume, finish, finished_result, mark_of
from warmstart.runs.run_dir import RunDir
from warmstart.runs.saved_model import SavedModel
from warmstart.runs.starting_weights import (
    check_same_pair,
    check_same_tokenizers,
    check_same_weights,
    start_from,
    unchanged_tokenizers,
)
from warmstart.tasks.check import validate
from warmstart.training.distillation import check_other_folder, check_teacher, soft_targets_of, teacher_record
from warmstart.training.scoring import final_split, scored_splits, scorer_of_fit
from warmstart.training.teacher_summaries import with_teachers_summaries

if TYPE_CHECKING:
    from warmstart.training.step_timing import FitPlan

TIMED_BATCHES = 3  # training batches that trainer.budget_minutes and trainer.measure_threads time


def run(settings: Config, folder: Path) -> float:
    """Run the whole fit, or nothing if the run directory already holds its complete result.

    A failed fit writes a ``result.json`` with the error; before it trains, an earlier complete result stays.

    Args:
        settings: the config.
        folder: the run directory.

    Returns:
        The best validation score, which a search optimises; NaN if the fit never validated.

    Raises:
        UserError: the config is invalid, the checkpoint cannot be resumed, or training diverged.
        Interrupted: a signal ended the fit.
    """
    from lightning.pytorch.utilities import rank_zero_only

    from warmstart.runs.identity import write_failure
    from warmstart.training.distributed.rank_watch import rank_timeout, watched_ranks
    from warmstart.training.recipe import log_choices, with_recipe

    run_dir = RunDir(folder)
    chosen = with_recipe(settings)
    settings = chosen.settings
    set_aside = rank_zero_only(run_dir.set_result_aside)  # a late rank would remove the failure that another wrote
    digest = config_hash_in(run_dir, settings)
    if (result := finished_result(settings, run_dir, digest)) is not None:
        best = result.get("validation", {}).get("best")
        return math.nan if best is None else float(best)
    try:
        validate(settings)
        check_other_folder(settings, folder)
        path = checkpoint_to_resume(settings, run_dir, digest)
        resume = None if path is None else SavedModel(path)
        if resume is not None:
            check_same_pair(settings, resume)
    except Exception as error:
        if not run_dir.is_complete:
            set_aside()
            write_failure(settings, run_dir, error)
        raise
    log_choices(chosen)
    was_complete = run_dir.is_complete
    set_aside()
    try:
        with watched_ranks(rank_timeout(settings.trainer)):
            return _logged_fit(Fit(settings, run_dir, digest, resume))
    except Interrupted as interrupted:
        write_failure(settings, run_dir, interrupted, "interrupted")
        raise
    except Exception as error:
        if resume and was_complete and not run_dir.checkpoints.unfinished.exists():  # the earlier fit is untouched
            run_dir.restore_result()
        else:
            write_failure(settings, run_dir, error)
        raise


@dataclass(frozen=True)
class Fit:
    """The inputs of one fit."""

    settings: Config
    run_dir: RunDir
    digest: str
    """The config hash, in the version that the run directory uses."""
    resume: SavedModel | None
    """The checkpoint to resume from, if any."""
    loggers: list[Any] = field(default_factory=list)
    began: float = 0.0
    """Start time, in seconds of ``time.perf_counter``."""

    @property
    def ranks(self) -> int:
        """Number of training processes."""
        return self.settings.trainer.devices * self.settings.trainer.nodes


def _logged_fit(fit: Fit) -> float:
    """Run the fit within a W&B run, which starts before anything slow and so also shows early failures."""
    from warmstart.training.loggers.wandb import build_loggers, close_loggers

    settings, folder = fit.settings, fit.run_dir.path
    tags = [f"encoder={settings.encoder.name}", f"decoder={settings.decoder.name}", f"data={settings.data.name}"]
    exit_code = 0
    loggers = build_loggers(
        settings.logger, folder, run_name=run_name(settings, folder), config=plain(settings), tags=tags
    )
    try:
        return _fit_and_test(replace(fit, loggers=loggers, began=time.perf_counter()))
    except BaseException as error:
        exit_code = status_of(error)
        raise
    finally:
        close_loggers(exit_code)


def _fit_and_test(fit: Fit) -> float:
    """Build data and model, train, evaluate the best checkpoint, and write the result."""
    import lightning as L
    import transformers

    from warmstart import cpu
    from warmstart.model.parameters import parameter_counts
    from warmstart.tasks.outcome import Evaluation, leave_unscored
    from warmstart.tasks.top_checkpoints import score_best
    from warmstart.training.callbacks.checkpoints import best_validation, ended_early
    from warmstart.training.checkpoint_average import average_best
    from warmstart.training.loggers.wandb import log_parameters
    from warmstart.training.plausibility import warn_of_implausible

    settings = fit.settings
    if settings.trainer.keep_freed_memory:
        cpu.keep_freed_memory()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    L.seed_everything(settings.seed, workers=True, verbose=False)

    teacher = teacher_record(settings, fit.resume)
    data = _data(fit)
    model = _model(fit, data.tokenizers)
    soft_targets = soft_targets_of(settings, model)
    plan = _plan(fit, data, model, soft_targets)
    warn_of_implausible(settings, plan.steps, data.tokenized("train").target_lengths, model)
    module = _module(fit, data, model, plan, soft_targets, teacher)
    log_parameters(fit.loggers, parameter_counts(model))
    trainer = _train(fit, data, module, plan)
    spent = {"throughput": module.throughput(), "seconds": {"fit": time.perf_counter() - fit.began}}
    averaged = average_best(settings.trainer, fit.run_dir.checkpoints, trainer, module, data)
    validation = best_validation(trainer)
    facts: dict[str, Any] = {
        **spent,
        "parameters": parameter_counts(model),
        "steps": trainer.global_step,
        "resumed": fit.resume is not None,
        "rows": data.row_counts(),
        "validation": validation,
    }
    facts |= averaged | ended_early(trainer, settings.trainer, plan.steps)
    best = SavedModel(str(fit.run_dir.checkpoints.best))
    evaluation = Evaluation(settings, fit.run_dir, best, data, fit.began, facts, fit.loggers, is_of_fit=True)
    if (split := final_split(settings)) is None:
        leave_unscored(evaluation)
    else:
        score_best(replace(evaluation, split=split), trainer)
    if trainer.is_global_zero:
        finish(fit.run_dir)
    return float(validation["best"])


def _data(fit: Fit) -> Any:
    """Build the data module, with its training and validation splits set up."""
    from warmstart.data.datamodule import SummarizationDataModule
    from warmstart.runs.scored_data import UNSCORED_FIT, check_scripts
    from warmstart.training.trainer import build_trainer, check_validations

    settings = fit.settings
    build_trainer(settings.trainer, fit.run_dir.path, [], [])  # refuses absent devices before texts are read
    source, tokenizers = _source_and_tokenizers(settings, fit.resume)
    check_scripts(source, scored_splits(settings), UNSCORED_FIT, settings.data.language)
    scorer_of_fit(settings)  # raises before training
    check_teacher(settings, tokenizers)
    source = with_teachers_summaries(settings, source)
    data = SummarizationDataModule(settings.data, tokenizers, seed=settings.seed, source=source)
    data.prepare_data()
    data.setup("fit")
    check_validations(settings.trainer, data.batches_in_epoch(fit.ranks), len(data.examples("validation")))
    return data


def _model(fit: Fit, tokenizers: Any) -> Any:
    """Build the model; a new fit also takes the weights of ``ckpt_weights``."""
    from warmstart.data.tokenization.target_start import target_start
    from warmstart.evaluation.summarize import try_search
    from warmstart.model.build import build_model
    from warmstart.model.compiling import compile_layers

    settings = fit.settings
    model = build_model(
        *(settings.encoder, settings.decoder, settings.bridge),
        special_ids=target_start(tokenizers, settings.data),
        longest_target=settings.data.max_target_length,
        encoder_pad_id=tokenizers.source_pad_id,
        sentence_ids=tokenizers.sentence_ids(),
        encoder_vocab_size=len(tokenizers.source),
        decoder_vocab_size=len(tokenizers.target),
    )
    if fit.resume is None and settings.ckpt_weights is not None:
        start_from(settings, model, tokenizers)
    try_search(model, tokenizers, settings.generation)
    if settings.trainer.checkpoint_activations:
        model.gradient_checkpointing_enable()
    if settings.trainer.compile:
        compile_layers(model)
    return model


def _plan(fit: Fit, data: Any, model: Any, soft_targets: Any) -> "FitPlan":
    """Return the optimizer steps of the whole fit and the threads that it uses.

    Raises:
        UserError: the checkpoint's weights do not fit, no step is left to train, or a warm-up outlasts the fit.
    """
    import torch

    from warmstart.training.schedule import steps_of_fit
    from warmstart.training.step_timing import FitPlan, plan_fit

    settings, resume = fit.settings, fit.resume
    taken, epoch, batch = 0, 0, 0
    kept: dict[str, Any] | None = None
    if resume is not None:
        check_same_weights(settings, resume, model)
        taken = resume.checkpoint["global_step"]
        epoch, batch = data.place_of(resume.checkpoint, fit.ranks)
        if resume.hyper_parameters.get("config_hash") == fit.digest:
            kept = resume.hyper_parameters.get("plan")
        resume.release()  # Lightning reads the file again, and the fit replaces it
    total_steps = steps_of_fit(settings.trainer, data.batches_in_epoch(fit.ranks), taken, epoch, batch)
    if resume is not None and taken >= total_steps:
        check_nothing_left(settings, fit.run_dir, resume.file, taken, epoch)
    plan = FitPlan(total_steps)
    if settings.trainer.budget_minutes is not None or settings.trainer.measure_threads:
        if kept is not None:  # a resumed fit keeps its schedule, and its threads, on which rounding depends
            plan = FitPlan(**kept)
            torch.set_num_threads(plan.threads or torch.get_num_threads())
        else:
            batches = list(itertools.islice(data.train_dataloader(), TIMED_BATCHES))
            plan = plan_fit(model, batches, settings.trainer, settings.optim, total_steps - taken, soft_targets)
            plan = replace(plan, steps=plan.steps + taken)
    if settings.bridge.warmup_steps >= plan.steps:
        raise UserError(
            f"bridge.warmup_steps={settings.bridge.warmup_steps}, but the fit takes {plan.steps} optimizer steps: "
            "pretrained parameters would never train. Set fewer, or set bridge.freeze=both if that is intended."
        )
    if fault := fault_of_warm_up(settings, plan.steps):
        raise UserError(fault)
    return plan


def _module(fit: Fit, data: Any, model: Any, plan: "FitPlan", soft_targets: Any, teacher: dict[str, str]) -> Any:
    """Build the LightningModule."""
    from warmstart.evaluation.columns import mean
    from warmstart.evaluation.summarize import generation_kwargs
    from warmstart.model.parameters import parameter_counts
    from warmstart.training.module import SummarizationModule

    settings, validation = fit.settings, data.examples("validation")
    scorer = scorer_of_fit(settings)

    def score(samples: list[dict[str, Any]]) -> dict[str, float]:
        predictions, references = ([sample[name] for sample in samples] for name in ("prediction", "reference"))
        documents = [validation[sample["index"]].document for sample in samples]
        return {name: mean(column) for name, column in scorer(predictions, references, documents).items()}

    return SummarizationModule(
        model,
        data.tokenizers,
        settings.optim,
        generation_kwargs(settings.generation, data.tokenizers),
        total_steps=plan.steps,
        hparams={
            "model_config": model.config.to_dict(),
            "config": plain(settings),
            "config_hash": fit.digest,
            "plan": asdict(plan),
            "vocabularies": data.tokenizers.vocabularies(),
            "parameters": parameter_counts(model),  # a loaded model does not know which parameters were new
            **teacher,
        },
        references=[one.summary for one in itertools.islice(validation, settings.trainer.validation_samples)],
        score=None if scorer is None else score,
        log_every=settings.trainer.log_every,
        unfreeze_after=settings.bridge.warmup_steps,
        soft_targets=soft_targets,
        seed=settings.seed,
        skip_limit=settings.trainer.skip_limit,
    )


def _train(fit: Fit, data: Any, module: Any, plan: "FitPlan") -> Any:
    """Train, write ``best.ckpt`` if no validation did, and return the trainer."""
    from warmstart.training.callbacks.checkpoints import SampleTable
    from warmstart.training.callbacks.interrupt import received_signal
    from warmstart.training.callbacks.progress import FitProgress
    from warmstart.training.distributed.same_config import SameOnAllRanks
    from warmstart.training.trainer import build_trainer

    settings, run_dir, tokenizers = fit.settings, fit.run_dir, data.tokenizers
    same = {"config": config_hash(settings), "tokenizers": tokenizers.fingerprint(), "data": data.source.fingerprint()}
    callbacks: list[Any] = [SameOnAllRanks(**same), SampleTable(run_dir.path, settings.logger.samples)]
    if settings.trainer.progress_bar:
        callbacks.append(FitProgress(settings.trainer, plan.steps))
    limit: dict[str, Any] = {} if settings.trainer.budget_minutes is None else {"max_steps": plan.steps}
    trainer = build_trainer(replace(settings.trainer, **limit), run_dir.path, fit.loggers, callbacks)
    resume = None if fit.resume is None else str(fit.resume.file)
    if trainer.is_global_zero:
        begin(run_dir, mark_of(settings, run_dir, fit.digest), resume)
        tokenizers.keep(run_dir.checkpoints.tokenizers)
    module.model.train()  # loading sets evaluation mode, which Lightning would keep: no dropout
    try:
        trainer.fit(module, datamodule=data, ckpt_path=resume)
    except SystemExit as exit_error:  # Lightning raises it after a second Ctrl-C
        raise KeyboardInterrupt from exit_error
    except Exception as error:
        if (received := received_signal(trainer)) is not None:
            raise Interrupted(received, None) from error
        raise
    best = run_dir.checkpoints.best
    # Without a validation there is no best checkpoint, so save the last weights. Saving needs every rank.
    if trainer.strategy.broadcast(not best.exists()):
        trainer.save_checkpoint(best)
    return trainer


def _source_and_tokenizers(settings: Config, resume: SavedModel | None) -> tuple[Any, Any]:
    """Load the texts and the tokenizers.

    A resumed fit uses those of its checkpoint: one that is trained on texts could differ by now.

    Raises:
        Unreachable: the hub cannot be reached; the message names everything that is missing.
    """
    from warmstart.data.hub_access import Unreachable
    from warmstart.data.sources.base import SPLITS
    from warmstart.data.sources.load import load_source
    from warmstart.data.tokenization.load import load_tokenizer
    from warmstart.data.tokenization.pair import pair_of

    splits = [split for split in SPLITS if split != "test" or settings.evaluation.test]
    kept = {} if resume is None else unchanged_tokenizers(settings, resume)
    missing: list[str] = []
    source: Any = None
    try:
        source = load_source(settings.data, splits)
    except Unreachable as error:
        missing += error.what

    def texts() -> Iterator[str]:
        return (text for example in source.split("train") for text in (example.document, example.summary))

    tokenizers = []
    for submodel, role in tokenized_submodels(settings):
        if role not in kept and source is None and submodel.weights is Weights.random:
            continue  # its tokenizer may need the texts for training
        try:
            tokenizers.append(kept[role] if role in kept else load_tokenizer(submodel, role, texts))
        except Unreachable as error:
            missing += error.what
    if missing:
        raise Unreachable(*missing)
    pair = pair_of(tokenizers, settings)
    if resume is not None:
        check_same_tokenizers(settings, resume, pair)
    return source, pair
