"""Build a Lightning trainer for a run directory from ``trainer.*`` settings."""

import difflib
import inspect
import logging
import math
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, ProgressBar, Timer
from lightning.pytorch.plugins import Precision
from lightning.pytorch.strategies import DDPStrategy

from warmstart.config.precision import resolve_precision
from warmstart.config.training import TrainerSettings
from warmstart.errors import UserError, listed
from warmstart.runs.checkpoint_io import AtomicCheckpointIO
from warmstart.runs.run_dir import RunDir
from warmstart.training.callbacks.checkpoints import SampleTable, Validations, checkpoint_callbacks, validates
from warmstart.training.callbacks.interrupt import GracefulShutdown
from warmstart.training.callbacks.weight_average import WeightAverage
from warmstart.training.distributed.rank_watch import group_timeout
from warmstart.training.float16_weights import half_precision_plugins

# Arguments of lightning.Trainer that trainer.extra refuses, and what to set instead: more depends on them than the
# trainer, such as the length of the schedule.
OWN_KEYS = {
    "max_epochs": "trainer.max_epochs",
    "max_steps": "trainer.max_steps",
    "max_time": "trainer.max_minutes",
    "accumulate_grad_batches": "trainer.accumulate",
    "gradient_clip_val": "trainer.clip_norm",
    "gradient_clip_algorithm": "trainer.clip_norm (gradients are only clipped by norm)",
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
_DDP_ACCELERATORS = ("cpu", "gpu", "cuda")  # strategy=auto is DDP for several of these devices


def check_extra(extra: dict[str, Any]) -> None:
    """Check the names of ``trainer.extra``.

    Raises:
        UserError: a name is not an argument of lightning.Trainer, or warmstart has its own key for it.
    """
    known = set(inspect.signature(L.Trainer.__init__).parameters) - {"self"}
    if unknown := sorted(set(extra) - known):
        near = [found for name in unknown for found in difflib.get_close_matches(name, sorted(known), n=3)]
        hint = f"Did you mean {listed(near)}?" if near else "Remove them."
        raise UserError(f"trainer.extra: lightning.Trainer has no argument {listed(unknown)}. {hint}")
    if own := sorted(set(extra) & OWN_KEYS.keys()):
        instead = ", ".join(f"{OWN_KEYS[name]} instead of trainer.extra.{name}" for name in own)
        raise UserError(f"trainer.extra: warmstart has its own keys for these. Set {instead}.")


def check_validations(settings: TrainerSettings, batches: int, examples: int) -> None:
    """Check that there are enough optimizer steps and examples for the configured validations.

    Args:
        settings: the number of validations and devices.
        batches: training batches of an epoch on each device.
        examples: examples of the validation split.

    Raises:
        UserError: an epoch has more validations than optimizer steps, or a device would have no validation example.
    """
    steps = math.ceil(batches / settings.accumulate)
    if settings.validations_per_epoch > steps:
        raise UserError(
            f"trainer.validations_per_epoch={settings.validations_per_epoch} was requested, but an epoch has {batches} "
            f"batches on each device, which are {steps} optimizer steps. Set at most {steps}, or make batches smaller "
            "(data.batch)."
        )
    ranks = settings.devices * settings.nodes
    if examples < ranks and validates(settings):
        raise UserError(
            f"{ranks} devices were requested (trainer.devices times trainer.nodes), but the validation split has "
            f"{examples} examples, and each device needs at least one. Set fewer devices, or use more examples "
            "(data.limit_validation)."
        )


def build_trainer(settings: TrainerSettings, run_dir: Path, loggers: list[Any], callbacks: list[Callback]) -> L.Trainer:
    """Build the trainer of one run.

    Args:
        settings: the ``trainer`` config.
        run_dir: folder of checkpoints and samples.
        loggers: Lightning loggers.
        callbacks: further callbacks; a ``SampleTable`` is added if they have none.

    Raises:
        UserError: ``trainer.extra`` is wrong, a number is too small, or this machine does not have the device.
    """
    check_extra(settings.extra)
    for name in ("accumulate", "validations_per_epoch", "log_every", "keep_last", "save_every"):
        if (value := getattr(settings, name)) is not None and value < 1:
            raise UserError(f"trainer.{name}={value} was requested. Set at least 1.")
    shutdown = GracefulShutdown(RunDir(run_dir).checkpoints.last, settings.save_every)
    every: list[Callback] = [] if settings.ema_decay is None else [WeightAverage(settings.ema_decay)]
    every += [*checkpoint_callbacks(settings, run_dir), shutdown, *callbacks]
    if not any(isinstance(callback, SampleTable) for callback in callbacks):
        every.append(SampleTable(run_dir))
    if settings.max_minutes is not None:
        every.append(Timer(timedelta(minutes=settings.max_minutes)))
    extra = dict(settings.extra)
    every += [
        *_listed(extra.pop("callbacks", None)),
        Validations(settings.validations_per_epoch, settings.epochs_per_validation, settings.patience),
    ]
    plugins = [AtomicCheckpointIO(settings.keep_last), *_listed(extra.pop("plugins", None))]
    if SLURMEnvironment.detect():
        plugins.append(SLURMEnvironment(auto_requeue=False))  # GracefulShutdown requeues
    precision = resolve_precision(settings.precision, settings.accelerator)
    if not any(isinstance(plugin, Precision) for plugin in plugins):
        plugins += half_precision_plugins(precision)
    given = any(isinstance(plugin, Precision) for plugin in plugins)  # Lightning accepts a plugin or a name, not both
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
        # Lightning's own bar would be added to the one of the fit.
        "enable_progress_bar": any(isinstance(callback, ProgressBar) for callback in every),
        "enable_model_summary": False,
        # Parameters that FSDP gathers in inference mode would be unusable for training.
        "inference_mode": settings.strategy != "fsdp",
        "use_distributed_sampler": False,  # our sampler already splits batches over ranks
        "num_sanity_val_steps": 0,
        "default_root_dir": run_dir,
        "logger": loggers,
        "callbacks": every,
        "plugins": plugins,
    }
    # It logs devices that are not used and advertises other products, each twice.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    # The folder already holds the run's tokenizers, and last.ckpt and best.ckpt are meant to be replaced.
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
    warnings.filterwarnings("ignore", message="The number of training batches .* is smaller than the logging interval")
    warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\)")  # a call of Lightning's own
    try:
        trainer = L.Trainer(**(chosen | extra))
    except (MisconfigurationException, ImportError, RuntimeError, ValueError, TypeError) as error:
        raise UserError(
            f"trainer.accelerator={settings.accelerator}, devices={settings.devices}, strategy={settings.strategy}, "
            f"precision={settings.precision} is not available on this machine: {str(error).splitlines()[0]} "
            "Set trainer.accelerator=auto trainer.devices=1, or what this machine has."
        ) from error
    if not given and trainer.precision != precision:
        raise UserError(
            f"trainer.precision={precision} was requested, but Lightning uses {trainer.precision} on this device. "
            f"Set trainer.precision={trainer.precision} or 32-true."
        )
    return trainer


def _strategy(settings: TrainerSettings) -> Any:
    ranks = settings.devices * settings.nodes
    if settings.strategy == "fsdp":
        from warmstart.training.distributed.fsdp import ShardedStrategy

        return ShardedStrategy(ranks, group_timeout(settings))
    auto_ddp = settings.strategy == "auto" and ranks > 1 and settings.accelerator in _DDP_ACCELERATORS
    if settings.strategy == "ddp" or auto_ddp:
        return DDPStrategy(timeout=group_timeout(settings))
    return settings.strategy


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
