"""Callbacks for checkpoints, the schedule of validations, and a table of generated summaries."""

import math
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, Timer
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.trainer.states import TrainerFn

from warmstart.config.training import TrainerSettings
from warmstart.runs.checkpoint_io import is_sound
from warmstart.runs.run_dir import CheckpointDir, RunDir
from warmstart.training.loggers.jsonl import keep_only_before
from warmstart.training.loggers.wandb_guard import log_wandb_errors


def validates(settings: TrainerSettings) -> bool:
    """Return whether a fit validates at all."""
    return bool(settings.extra.get("limit_val_batches", 1.0) != 0)


def checkpoint_callbacks(settings: TrainerSettings, run_dir: Path) -> list[Callback]:
    """Build the callbacks that write ``last.ckpt`` at each validation and ``best.ckpt`` by the monitored metric.

    With ``trainer.patience`` there is also one that stops a fit that no longer improves.

    Args:
        settings: the ``trainer`` config.
        run_dir: folder of the run.
    """
    folder = RunDir(run_dir).checkpoints
    # Save at the end of validations, not of epochs: a fit that resumes at an epoch's end repeats that event, without a
    # metric. Only a fit without validations saves at the end of epochs.
    options: dict[str, Any] = {
        "save_top_k": 1,
        "enable_version_counter": False,
        "save_on_train_epoch_end": not validates(settings),
    }
    best = BestCheckpoint(
        folder.path, filename=folder.best.stem, monitor=settings.monitor, mode=settings.monitor_mode, **options
    )
    top = []
    if (kept := max(settings.score_best, settings.average_best)) > 1:
        named = {"filename": "top-{step}", "auto_insert_metric_name": False, "save_top_k": kept}
        top = [TopCheckpoints(folder.path, monitor=settings.monitor, mode=settings.monitor_mode, **options | named)]
    # After ``best``, so that its callback states include a new best score.
    last = ModelCheckpoint(folder.path, filename=folder.last.stem, monitor=None, **options)
    callbacks: list[Callback] = [best, *top, last]
    if settings.patience is not None:
        # No check_finite: the module stops at a non-finite loss, with a better message.
        callbacks.append(
            EarlyStopping(
                settings.monitor,
                mode=settings.monitor_mode,
                patience=settings.patience,
                check_finite=False,
                check_on_train_epoch_end=False,
            )
        )
    return callbacks


class TopCheckpoints(ModelCheckpoint):
    """Writes the checkpoints with the best monitored scores as ``top-STEP.ckpt``."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the scores of the checkpoints that are in this folder, which may have been moved."""
        super().load_state_dict(state_dict)
        folder = Path(str(self.dirpath))
        paths = {str(folder / Path(path).name): score for path, score in state_dict["best_k_models"].items()}
        self.best_k_models = {path: score for path, score in paths.items() if Path(path).exists()}
        if self.best_k_models:
            worst, best = (max, min) if self.mode == "min" else (min, max)
            self.best_model_path = best(self.best_k_models, key=lambda path: float(self.best_k_models[path]))
            self.best_model_score = self.best_k_models[self.best_model_path]
            self.kth_best_model_path = worst(self.best_k_models, key=lambda path: float(self.best_k_models[path]))
            self.kth_value = self.best_k_models[self.kth_best_model_path]

    def steps(self) -> dict[int, float]:
        """Return the score of each checkpoint by its optimizer step, the best one first."""
        found = {int(Path(path).stem.removeprefix("top-")): float(score) for path, score in self.best_k_models.items()}
        return dict(sorted(found.items(), key=lambda item: item[1], reverse=self.mode == "max"))


def top_steps(trainer: L.Trainer) -> dict[int, float]:
    """Return what ``TopCheckpoints.steps`` does; empty if only the best checkpoint is kept."""
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, TopCheckpoints):
            return callback.steps()
    return {}


class BestCheckpoint(ModelCheckpoint):
    """Writes ``best.ckpt``, and takes its score into account after a resume.

    A fit may resume from a checkpoint that is older than ``best.ckpt``. If it then develops differently, for example on
    another machine, a worse checkpoint must not replace the best one. A ``best.ckpt`` of any other fit is ignored and
    replaced.
    """

    _fits: tuple[str | None, ...] = ()

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Remember the config hashes of this fit and of the one it resumes."""
        self._fits = _fit_of(checkpoint), pl_module.hparams.get("config_hash")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best score, or take that of an existing ``best.ckpt`` if it is better."""
        super().load_state_dict(state_dict)
        path = CheckpointDir(Path(str(self.dirpath))).best
        if not (path.exists() and is_sound(path)):
            return
        held = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if _fit_of(held) not in self._fits:
            return
        score = held["callbacks"].get(self.state_key, {}).get("best_model_score")
        known = self.best_model_score
        better = torch.lt if self.mode == "min" else torch.gt
        if score is not None and (known is None or better(score, known)):
            self.best_model_score = self.current_score = score
            self.best_k_models = {str(path): score}
            self.kth_best_model_path = self.best_model_path = str(path)
            self.kth_value = score


def _fit_of(checkpoint: dict[str, Any]) -> str | None:
    fit: str | None = checkpoint.get("hyper_parameters", {}).get("config_hash")
    return fit


def best_callback(trainer: L.Trainer) -> BestCheckpoint:
    """Return the callback that writes ``best.ckpt``.

    Raises:
        ValueError: the trainer has none.
    """
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, BestCheckpoint):
            return callback
    raise ValueError("The trainer has no checkpoint callback with a monitor.")


def best_validation(trainer: L.Trainer) -> dict[str, Any]:
    """Return ``monitor``, ``mode`` and ``best``, the score of ``best.ckpt``.

    ``best`` is NaN if the fit ended before a validation.

    Raises:
        ValueError: the trainer has no checkpoint callback with a monitor.
    """
    callback = best_callback(trainer)
    best = math.nan if callback.best_model_score is None else float(callback.best_model_score)
    return {"monitor": callback.monitor, "mode": callback.mode, "best": best}


def ended_early(trainer: L.Trainer, settings: TrainerSettings, total_steps: int) -> dict[str, str]:
    """Return how much was trained and what ended the fit, as ``ended_early``; an empty dict after its last step."""
    taken = trainer.global_step
    if taken >= total_steps:
        return {}
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    reason = f"Training ended after {taken} of {total_steps} steps ({taken / total_steps:.0%})"
    if any(isinstance(callback, Timer) and (callback.time_remaining() or 0) <= 0 for callback in callbacks):
        reason += (
            f", at trainer.max_minutes={settings.max_minutes:g}, so the learning rates had not fallen to the end of "
            "their schedule. For a fit whose schedule ends in time, set trainer.budget_minutes instead"
        )
    elif any(
        isinstance(callback, EarlyStopping) and callback.wait_count >= callback.patience for callback in callbacks
    ):
        reason += f": {settings.monitor} had not improved for trainer.patience={settings.patience} validations"
    return {"ended_early": f"{reason}."}


class Validations(Callback):
    """Schedules validations: ``each_epoch`` in an epoch, or one every few epochs, and one at the end of a fit.

    Validations only come after complete optimizer steps, because a checkpoint holds no gradients. The one at the end
    also comes if ``max_steps`` or the time limit ends the fit; without it, neither ``best`` nor ``last`` would contain
    the last steps. Lightning's own interval counts batches and leaves a remainder. This callback has to come after
    every other callback that can stop a fit.

    Args:
        each_epoch: validations in each epoch.
        every: epochs from one validation to the next; ``each_epoch`` is 1 if it is more than 1.
        patience: validations without improvement after which the fit stops; None never stops early.
    """

    def __init__(self, each_epoch: int, every: int = 1, patience: int | None = None) -> None:
        """Keep the numbers."""
        self.each_epoch = each_epoch
        self.every = every
        self.patience = patience
        self._stops = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Set the first validation, and stop a resumed fit that patience had ended."""
        self._stops = False
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, EarlyStopping) and self.patience is not None:
                callback.patience = self.patience  # the checkpoint restores that of the earlier fit
                trainer.should_stop = callback.wait_count >= self.patience
        self._set_next(trainer, trainer.fit_loop.epoch_loop.batch_progress.current.completed)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Set the next validation, and delay a stop until the current optimizer step is complete."""
        self._set_next(trainer, batch_idx + 1)
        self._stops |= trainer.should_stop or 0 < trainer.max_steps <= trainer.global_step
        trainer.should_stop = self._stops and pl_module.between_steps

    def _set_next(self, trainer: L.Trainer, batches: int) -> None:
        """Set ``val_check_batch``: Lightning validates after each batch whose number it divides."""
        epoch = trainer.current_epoch + 1
        if epoch % self.every and epoch != trainer.max_epochs:
            trainer.val_check_batch = int(trainer.num_training_batches) + 1  # a batch that never comes
            return
        ends = validation_batches(int(trainer.num_training_batches), self.each_epoch, trainer.accumulate_grad_batches)
        trainer.val_check_batch = next((end for end in ends if end >= batches), batches)


def validation_batches(batches: int, each_epoch: int, accumulate: int) -> list[int]:
    """Return after how many batches of an epoch each of its validations comes.

    Args:
        batches: batches of an epoch.
        each_epoch: number of validations.
        accumulate: batches of an optimizer step.

    Returns:
        Ends of optimizer steps, evenly spread, up to the end of the epoch. Some repeat if there are fewer steps than
        validations.
    """
    steps = -(-batches // accumulate)
    return [min(-(-steps * i // each_epoch) * accumulate, batches) for i in range(1, each_epoch + 1)]


class SampleTable(Callback):
    """Writes samples of each validation: document, reference, prediction and scores.

    They are appended to ``validation_samples.jsonl`` in the run directory and, if W&B is on, to the table
    ``validation/samples``. Documents come from the datamodule's ``examples("validation")``.

    Args:
        run_dir: folder of the file.
        rows: number of samples of each validation, the first ones.
    """

    def __init__(self, run_dir: Path, rows: int = 16) -> None:
        """Keep the folder; the file is opened at the first validation."""
        self.run_dir = RunDir(run_dir)
        self.rows = rows
        self._table: Any = None
        self._resumed = False

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Expect samples of an earlier fit in the file."""
        self._resumed = False

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Append the samples of this validation."""
        samples = list(getattr(pl_module, "samples", []))[: self.rows]
        if not samples or trainer.sanity_checking or not trainer.is_global_zero:
            return
        if trainer.state.fn != TrainerFn.FITTING:
            return
        rows = [self._row(sample, trainer, pl_module) for sample in samples]
        if not self._resumed:  # the fit may have resumed at an earlier step and write later samples again
            keep_only_before(self.run_dir.samples, trainer.global_step)
            self._resumed = True
        self.run_dir.add_samples(rows)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                with log_wandb_errors():
                    self._log_to_wandb(logger, rows, trainer.global_step)

    def _row(self, sample: dict[str, Any], trainer: L.Trainer, module: Any) -> dict[str, Any]:
        row: dict[str, Any] = {"step": trainer.global_step, "epoch": trainer.current_epoch, "index": sample["index"]}
        examples = getattr(getattr(trainer, "datamodule", None), "examples", None)
        if examples is not None:
            example = examples("validation")[sample["index"]]
            row |= {"id": example.id, "document": example.document}
        row |= {"reference": sample["reference"], "prediction": sample["prediction"]}
        if module.score is not None:
            scores = module.score([sample])
            row |= {name: round(float(value), 4) for name, value in scores.items()}
        return row

    def _log_to_wandb(self, logger: WandbLogger, rows: list[dict[str, Any]], step: int) -> None:
        import wandb

        if self._table is None:
            # The default table, the only one that WandbLogger.log_table supports, cannot change after its first log.
            self._table = wandb.Table(columns=list(rows[0]), log_mode="INCREMENTAL")
        for row in rows:
            self._table.add_data(*(row.get(column) for column in self._table.columns))
        # Lightning's curves number steps from 0; global_step is the number of completed steps.
        logger.experiment.log({"validation/samples": self._table, "trainer/global_step": step - 1})
