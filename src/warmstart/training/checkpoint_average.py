"""Average the best checkpoints of a fit, and keep the average if it validates better (``trainer.average_best``).

Vaswani et al. (2017) average their last checkpoints. Here the best ones by ``trainer.monitor`` are averaged, and the
validation split decides between the average and the best checkpoint, so that the test split is only read for one.
"""

import math
import signal
from typing import Any

import lightning as L
import torch
from torch import Tensor

from warmstart.collectives import failing_together
from warmstart.config.training import TrainerSettings
from warmstart.errors import Interrupted
from warmstart.printing import say
from warmstart.runs.checkpoint_io import AtomicCheckpointIO, is_sound
from warmstart.runs.run_dir import CheckpointDir
from warmstart.runs.saved_model import SavedModel
from warmstart.training.callbacks.checkpoints import best_callback, top_steps

AVERAGED = "averaged_steps"  # entry of a checkpoint that holds an average


def mean_weights(states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the mean of several state dicts.

    Args:
        states: state dicts of one model, the best one first.

    Returns:
        The means in the dtypes of the first, computed in float32 or more. Integers, and tensors that are equal in all,
        are those of the first. Tensors that are tied in the first are tied.
    """
    first, *others = states
    means: dict[tuple[int, torch.Size], Tensor] = {}
    found = {}
    for name, weight in first.items():
        place = weight.data_ptr(), weight.shape
        if place not in means:
            means[place] = _mean(weight, [other[name] for other in others])
        found[name] = means[place]
    return found


def _mean(first: Tensor, others: list[Tensor]) -> Tensor:
    if not first.is_floating_point() or all(torch.equal(first, other) for other in others):
        return first.clone()
    dtype = torch.promote_types(first.dtype, torch.float32)
    return torch.stack([first, *others]).to(dtype).mean(0).to(first.dtype)


def average_best(
    settings: TrainerSettings, folder: CheckpointDir, trainer: L.Trainer, module: L.LightningModule, data: Any
) -> dict[str, Any]:
    """Average the best checkpoints, validate the average, and write it to ``best.ckpt`` if it is better.

    Every rank has to call this, after the fit. The weights of ``module`` are replaced.

    Args:
        settings: the ``trainer`` config.
        folder: the checkpoints of the run.
        trainer: the trainer of the fit.
        module: its module.
        data: its datamodule.

    Returns:
        ``averaged_checkpoints`` for ``result.json``: steps and validation score of the average and of the best single
        checkpoint, and as ``scored_steps`` the steps that ``best.ckpt`` is the average of. Empty if nothing was
        averaged.
    """
    requested = settings.average_best
    if requested == 1:
        return {}
    kept = {step: score for step, score in top_steps(trainer).items() if is_sound(folder.top(step))}
    singles = dict([*kept.items()][:requested])
    if len(singles) < requested and trainer.is_global_zero:
        nothing = ", so nothing is averaged. Raise trainer.validations_per_epoch" if len(singles) < 2 else ""
        say(f"trainer.average_best={requested} was requested; this fit kept {len(singles)}{nothing}.")
    if len(singles) < 2:
        return {}
    best = SavedModel(str(folder.top(next(iter(singles))))).checkpoint
    others = [SavedModel(str(folder.top(step))).checkpoint for step in [*singles][1:]]
    weights = mean_weights([one["state_dict"] for one in (best, *others)])
    module.load_state_dict(weights)
    score = _validate(trainer, module, data, settings.monitor)
    steps, callback = list(singles), best_callback(trainer)
    better = torch.lt if settings.monitor_mode == "min" else torch.gt
    if callback.best_model_score is None or better(score, callback.best_model_score.cpu()):
        callback.best_model_score = score
        with failing_together():
            if trainer.is_global_zero:
                state = best["callbacks"][callback.state_key] | {"best_model_score": score}
                best |= {"state_dict": weights, AVERAGED: steps}
                best["callbacks"] |= {callback.state_key: state}
                AtomicCheckpointIO().save_checkpoint(best, folder.best)
    scored = SavedModel(str(folder.best)).checkpoint
    record = {
        "steps": steps,
        "validation": float(score),
        "best": {"step": steps[0], "validation": singles[steps[0]]},
        "scored_steps": scored.get(AVERAGED, [scored["global_step"]]),
    }
    if trainer.is_global_zero:
        chosen = record["scored_steps"]
        kind = "best checkpoint" if len(chosen) == 1 else "average" if chosen == steps else "average of an earlier fit"
        say(
            f"{settings.monitor} is {float(score):.4f} for the average of the {len(steps)} best checkpoints and "
            f"{singles[steps[0]]:.4f} for the best one: the {kind} is scored."
        )
    return {"averaged_checkpoints": record}


def _validate(trainer: L.Trainer, module: L.LightningModule, data: Any, monitor: str) -> Tensor:
    """Return the monitored score of the module, by the validation of the fit; it is not logged."""
    loggers, trainer.loggers = trainer.loggers, []
    try:
        trainer.validate(module, datamodule=data, verbose=False)
    except SystemExit as ended:  # Lightning raises it after SIGTERM, without a status, and after Ctrl-C, with 1
        raise (KeyboardInterrupt if ended.code else Interrupted(signal.SIGTERM, None)) from ended
    finally:
        trainer.loggers = loggers
    if trainer.received_sigterm:  # in the last batch
        raise Interrupted(signal.SIGTERM, None)
    return trainer.callback_metrics.get(monitor, torch.tensor(math.nan)).cpu()
