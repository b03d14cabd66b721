"""A Lightning trainer for a run directory: precision that suits the device, checkpoints named last and best."""

import difflib
import inspect
import math
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, Timer
from lightning.pytorch.plugins import Precision
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from warmstart.config.precision import resolve_precision
from warmstart.config.training import TrainerSettings
from warmstart.errors import UserError, listed
from warmstart.runs.checkpoint_io import AtomicCheckpointIO
from warmstart.runs.run_dir import RunDir
from warmstart.training.callbacks.checkpoints import SampleTable, Validations, checkpoint_callbacks, validates
from warmstart.training.callbacks.interrupt import Leave
from warmstart.training.distributed.rank_watch import group_timeout
from warmstart.training.float16_weights import half_weights

# Of these there is a key of our own, on which more depends than the trainer (the schedule's length, file names), or
# another way to what they are asked for.
OWN_KEYS = {
    "max_epochs": "trainer.max_epochs",
    "max_steps": "trainer.max_steps",
    "max_time": "trainer.max_minutes",
    "accumulate_grad_batches": "trainer.accumulate",
    "gradient_clip_val": "trainer.clip_norm",
    "gradient_clip_algorithm": "trainer.clip_norm (gradients are clipped by their norm alone)",
    "limit_train_batches": "data.limit_train (examples) or trainer.max_steps",
    "overfit_batches": "data.limit_train (examples) or trainer.max_steps",
    "fast_dev_run": "debug=tiny or trainer.max_steps",
    "precision": "trainer.precision",
    "accelerator": "trainer.accelerator",
    "devices": "trainer.devices",
    "num_nodes": "trainer.nodes",
    "strategy": "trainer.strategy",
    "val_check_interval": "trainer.validations_per_epoch",
    "log_every_n_steps": "trainer.log_every",
    "enable_progress_bar": "trainer.progress_bar",
    "logger": "logger",
    "default_root_dir": "name or output_root",
}
_BY_DDP = ("cpu", "gpu", "cuda")  # for several of which Lightning takes DDP where strategy=auto


def check_extra(extra: dict[str, Any]) -> None:
    """Raise a UserError where ``trainer.extra`` names what is not the trainer's, or what has a key of its own."""
    known = set(inspect.signature(L.Trainer.__init__).parameters) - {"self"}
    if unknown := sorted(set(extra) - known):
        near = [found for name in unknown for found in difflib.get_close_matches(name, sorted(known), n=3)]
        raise UserError(
            f"trainer.extra: lightning.Trainer takes no {listed(unknown)}. Near them: {listed(near) or 'nothing'}."
        )
    if own := sorted(set(extra) & OWN_KEYS.keys()):
        said = ", ".join(f"{OWN_KEYS[name]} instead of trainer.extra.{name}" for name in own)
        raise UserError(f"trainer.extra: these have a key of their own. Set {said}.")


def check_validations(settings: TrainerSettings, batches: int, examples: int) -> None:
    """Raise a UserError where an epoch's optimizer steps, or the validation split's examples, are too few.

    Validations come between two steps, and each device has an example in them.
    """
    steps = math.ceil(batches / settings.accumulate)
    if settings.validations_per_epoch > steps:
        raise UserError(
            f"trainer.validations_per_epoch={settings.validations_per_epoch} was asked for, but an epoch has {batches} "
            f"batches on each device, which are {steps} optimizer steps. Set at most {steps}, or make batches smaller "
            "(data.batch)."
        )
    ranks = settings.devices * settings.nodes
    if examples < ranks and validates(settings):
        raise UserError(
            f"{ranks} devices were asked for (trainer.devices times trainer.nodes), but the validation split has "
            f"{examples} examples: each device takes one at least. Ask for fewer devices, or more examples "
            "(data.limit_validation)."
        )


def build_trainer(settings: TrainerSettings, run_dir: Path, loggers: list[Any], callbacks: list[Callback]) -> L.Trainer:
    """The trainer of one run; a :class:`SampleTable` is added where ``callbacks`` has none.

    Raises:
        UserError: ``trainer.extra`` is wrong, a bound is, or the accelerator is not there.
    """
    check_extra(settings.extra)
    for name in ("accumulate", "validations_per_epoch", "log_every", "keep_last", "save_every"):
        if (value := getattr(settings, name)) is not None and value < 1:
            raise UserError(f"trainer.{name}={value} was asked for: it is at least 1.")
    leave = Leave(RunDir(run_dir).checkpoints.last, settings.save_every)
    every = [*checkpoint_callbacks(settings, run_dir), leave, *callbacks]
    if not any(isinstance(callback, SampleTable) for callback in callbacks):
        every.append(SampleTable(run_dir))
    if settings.max_minutes is not None:
        every.append(Timer(timedelta(minutes=settings.max_minutes)))
    extra = dict(settings.extra)
    every += [*_listed(extra.pop("callbacks", None)), Validations(settings.validations_per_epoch)]
    plugins = [AtomicCheckpointIO(settings.keep_last), *_listed(extra.pop("plugins", None))]
    if SLURMEnvironment.detect():
        plugins.append(SLURMEnvironment(auto_requeue=False))  # what Leave does
    precision = resolve_precision(settings.precision, settings.accelerator)
    if not any(isinstance(plugin, Precision) for plugin in plugins):
        plugins += half_weights(precision)
    given = any(isinstance(plugin, Precision) for plugin in plugins)  # Lightning takes that or a name, not both
    chosen: dict[str, Any] = {
        "max_epochs": settings.max_epochs,
        "max_steps": settings.max_steps,
        "accumulate_grad_batches": settings.accumulate,
        "gradient_clip_val": settings.clip_norm or None,
        "precision": None if given else precision,
        "accelerator": settings.accelerator,
        "devices": settings.devices,
        "num_nodes": settings.nodes,
        "strategy": _strategy(settings),
        "log_every_n_steps": settings.log_every,
        "enable_progress_bar": settings.progress_bar,
        "enable_model_summary": False,
        "inference_mode": settings.strategy != "fsdp",  # what is gathered in it could not be trained on
        "use_distributed_sampler": False,  # our sampler plans for all ranks
        "num_sanity_val_steps": 0,
        "default_root_dir": run_dir,
        "logger": loggers,
        "callbacks": every,
        "plugins": plugins,
    }
    # The run's tokenizers lie there already; last.ckpt and best.ckpt are meant to be replaced.
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
    try:
        trainer = L.Trainer(**(chosen | extra))
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise UserError(
            f"trainer.accelerator={settings.accelerator}, devices={settings.devices}, strategy={settings.strategy}, "
            f"precision={settings.precision} cannot be had on this machine: {str(error).splitlines()[0]} "
            "Set trainer.accelerator=auto trainer.devices=1, or what the machine has."
        ) from error
    if not given and trainer.precision != precision:
        raise UserError(
            f"trainer.precision={precision} was asked for; on this device Lightning takes {trainer.precision} instead. "
            "Set that, or 32-true."
        )
    return trainer


def _strategy(settings: TrainerSettings) -> Any:
    ranks = settings.devices * settings.nodes
    if settings.strategy == "fsdp":
        from warmstart.training.distributed.fsdp import ShardedStrategy

        return ShardedStrategy(ranks, group_timeout(settings))
    if settings.strategy == "ddp" or (settings.strategy == "auto" and ranks > 1 and settings.accelerator in _BY_DDP):
        return DDPStrategy(timeout=group_timeout(settings))
    return settings.strategy


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
