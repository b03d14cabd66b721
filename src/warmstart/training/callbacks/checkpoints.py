"""What happens beside the steps: checkpoints, an end that is validated, and a table of what the model writes."""

import math
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger

from warmstart.config.training import TrainerSettings
from warmstart.runs.checkpoint_io import is_sound
from warmstart.runs.run_dir import CheckpointDir, RunDir
from warmstart.training.loggers.jsonl import keep_only_before
from warmstart.training.loggers.wandb_guard import failing_alone


def validates(settings: TrainerSettings) -> bool:
    """Whether a fit validates at all."""
    return settings.extra.get("limit_val_batches", 1.0) != 0


def checkpoint_callbacks(settings: TrainerSettings, run_dir: Path) -> list[Callback]:
    """``checkpoints/last.ckpt`` at every validation, ``checkpoints/best.ckpt`` by the monitored metric."""
    folder = RunDir(run_dir).checkpoints
    # At the end of validations, never of epochs: resuming at an epoch's end fires that end again, without a metric.
    # Only a fit without validation has nothing else to save at.
    options: dict[str, Any] = {
        "save_top_k": 1,
        "enable_version_counter": False,
        "save_on_train_epoch_end": not validates(settings),
    }
    best = BestCheckpoint(
        folder.path, filename=folder.best.stem, monitor=settings.monitor, mode=settings.monitor_mode, **options
    )
    # After ``best``, so that the state in it already knows of a new best score.
    last = ModelCheckpoint(folder.path, filename=folder.last.stem, monitor=None, **options)
    callbacks: list[Callback] = [best, last]
    if settings.patience is not None:
        # A loss that is not finite is reported by the module, with what to do.
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


class BestCheckpoint(ModelCheckpoint):
    """``best.ckpt``; a fit that is resumed from before it was written knows its score all the same.

    Else a worse one would replace it, where the resumed fit goes another way: on another machine, say. One that is
    neither of this fit nor of the one that it goes on with says nothing, and is replaced.
    """

    _fits: tuple[str | None, ...] = ()

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._fits = _fit_of(checkpoint), pl_module.hparams.get("config_hash")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
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
    return checkpoint.get("hyper_parameters", {}).get("config_hash")


def best_validation(trainer: L.Trainer) -> dict[str, Any]:
    """``monitor``, ``mode`` and ``best``, the score of ``best.ckpt``; NaN where the fit ended before a validation."""
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor is not None:
            best = math.nan if callback.best_model_score is None else float(callback.best_model_score)
            return {"monitor": callback.monitor, "mode": callback.mode, "best": best}
    raise ValueError("The trainer has no checkpoint callback with a monitor.")


class Validations(Callback):
    """``each_epoch`` validations, and one at the end of a fit, also where ``max_steps`` or the clock is that.

    All come after whole optimizer steps: a checkpoint holds no gradients. Without the one at the end the steps since
    the last would be trained and thrown away: neither ``best`` nor ``last`` would hold them. Lightning's own interval
    counts batches, and has a remainder. Stands behind whatever else may stop a fit.
    """

    def __init__(self, each_epoch: int) -> None:
        self.each_epoch = each_epoch
        self._stops = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._stops = False
        self._set_next(trainer, trainer.fit_loop.epoch_loop.batch_progress.current.completed)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._set_next(trainer, batch_idx + 1)
        self._stops |= trainer.should_stop or 0 < trainer.max_steps <= trainer.global_step
        trainer.should_stop = self._stops and pl_module.between_steps

    def _set_next(self, trainer: L.Trainer, batches: int) -> None:
        """Lightning validates after batches that ``val_check_batch`` divides: the next such one is that itself."""
        places = validated_after(int(trainer.num_training_batches), self.each_epoch, trainer.accumulate_grad_batches)
        trainer.val_check_batch = next((place for place in places if place >= batches), batches)


def validated_after(batches: int, each_epoch: int, accumulate: int) -> list[int]:
    """After how many of an epoch's batches it is validated: evenly spread over its optimizer steps, the last included.

    An epoch of fewer steps than validations has some twice.
    """
    steps = -(-batches // accumulate)
    return [min(-(-steps * i // each_epoch) * accumulate, batches) for i in range(1, each_epoch + 1)]


class SampleTable(Callback):
    """After each validation, the first ``rows`` of its samples: document, reference, prediction, scores.

    They are appended to ``validation_samples.jsonl`` in the run directory and, where W&B is on, to the table
    ``validation/samples``. Documents come from the datamodule's ``examples("validation")``.
    """

    def __init__(self, run_dir: Path, rows: int = 16) -> None:
        self.run_dir = RunDir(run_dir)
        self.rows = rows
        self._table: Any = None
        self._resumed = False

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._resumed = False

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        samples = list(getattr(pl_module, "samples", []))[: self.rows]
        if not samples or trainer.sanity_checking or not trainer.is_global_zero:
            return
        rows = [self._row(sample, trainer, pl_module) for sample in samples]
        if not self._resumed:  # from an earlier step, perhaps, whose later samples are written again
            keep_only_before(self.run_dir.samples, trainer.global_step)
            self._resumed = True
        self.run_dir.add_samples(rows)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                with failing_alone():
                    self._log_to_wandb(logger, rows, trainer.global_step)

    def _row(self, sample: dict[str, Any], trainer: L.Trainer, module: Any) -> dict[str, Any]:
        row: dict[str, Any] = {"step": trainer.global_step, "epoch": trainer.current_epoch, "index": sample["index"]}
        examples = getattr(getattr(trainer, "datamodule", None), "examples", None)
        if examples is not None:
            example = examples("validation")[sample["index"]]
            row |= {"id": example.id, "document": example.document}
        row |= {"reference": sample["reference"], "prediction": sample["prediction"]}
        if module.score is not None:
            scores = module.score([sample["prediction"]], [sample["reference"]])
            row |= {name: round(float(value), 4) for name, value in scores.items()}
        return row

    def _log_to_wandb(self, logger: WandbLogger, rows: list[dict[str, Any]], step: int) -> None:
        import wandb

        if self._table is None:
            # The default table is immutable after its first log; WandbLogger.log_table knows no other.
            self._table = wandb.Table(columns=list(rows[0]), log_mode="INCREMENTAL")
        for row in rows:
            self._table.add_data(*(row.get(column) for column in self._table.columns))
        # Curves count the step that was just taken from 0, the table and checkpoints the steps that are done.
        logger.experiment.log({"validation/samples": self._table, "trainer/global_step": step - 1})
