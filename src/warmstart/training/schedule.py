"""The learning-rate schedule: linear warm-up, then linear, cosine or inverse-sqrt decay, or a constant learning rate.

``noam`` is inverse-sqrt decay with the learning rates of Rothe et al. 2020 (``warmstart.config.training.Decay``).

The caller counts the batches and passes ``total_steps``. Lightning's own estimate of it would make a resumed fit repeat
data.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from warmstart.config.training import Decay, OptimSettings, TrainerSettings
from warmstart.training.optimizer import NEW


def steps_of_fit(trainer: TrainerSettings, batches: int, taken: int, epoch: int, batch: int) -> int:
    """Return the optimizer steps of the whole fit: ``taken`` ones, and those left in the current batches and ranks."""
    steps = taken + math.ceil(batches / trainer.accumulate) * (trainer.max_epochs - epoch) - batch // trainer.accumulate
    return min(steps, trainer.max_steps) if trainer.max_steps > 0 else steps


def warmup_steps(optim: OptimSettings, total_steps: int) -> int:
    """Return the number of warm-up steps, at least one; the last of them has the peak learning rate."""
    steps = round(optim.warmup_fraction * total_steps) if optim.warmup_steps is None else optim.warmup_steps
    return max(steps, 1)


def lr_factor(optim: OptimSettings, total_steps: int, hidden_size: int = 1) -> Callable[[int], float]:
    """Return a function from an optimizer step (0-based) to the factor on the learning rates of the config.

    Linear and cosine decay reach zero at step ``total_steps``, the first one after training.

    Args:
        optim: warm-up and decay.
        total_steps: optimizer steps of the fit.
        hidden_size: hidden size of the decoder, by whose square root ``noam`` divides.
    """
    warmup = warmup_steps(optim, total_steps)
    peak = (hidden_size * warmup) ** -0.5 if optim.decay is Decay.noam else 1.0

    def factor(step: int) -> float:
        if step < warmup:
            return peak * (step + 1) / warmup
        progress = min((step - warmup) / max(total_steps - warmup, 1), 1.0)
        match optim.decay:
            case Decay.linear:
                return 1 - progress
            case Decay.cosine:
                return 0.5 * (1 + math.cos(math.pi * progress))
            case Decay.inverse_sqrt | Decay.noam:
                return peak * math.sqrt(warmup / (step + 1))
            case Decay.constant:
                return 1.0

    return factor


class Schedule(LambdaLR):
    """A schedule that resumes at a checkpoint's step with the peaks and the shape of the current config."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the step from ``state_dict`` and set each group's learning rate for it."""
        super().load_state_dict(state_dict | {"base_lrs": self.base_lrs})
        lrs = [peak * factor(self.last_epoch) for peak, factor in zip(self.base_lrs, self.lr_lambdas, strict=True)]
        for group, lr in zip(self.optimizer.param_groups, lrs, strict=True):
            group["lr"] = lr
        self._last_lr = lrs


def build_schedule(
    optimizer: torch.optim.Optimizer,
    optim: OptimSettings,
    total_steps: int,
    unfreeze_after: int = 0,
    hidden_size: int = 1,
) -> Schedule:
    """Build the schedule of all parameter groups.

    Args:
        optimizer: its groups are named as by ``warmstart.training.optimizer.parameter_groups``.
        optim: warm-up and decay; the encoder may have a warm-up of its own (``encoder_warmup_steps``).
        total_steps: optimizer steps of the fit.
        unfreeze_after: steps for which pretrained groups have a learning rate of zero. They then have a warm-up of
            their own, which never exceeds the common schedule.
        hidden_size: hidden size of the decoder, for ``noam``.

    Returns:
        The schedule; call its ``step`` after each optimizer step.
    """
    factor, warmup = lr_factor(optim, total_steps, hidden_size), warmup_steps(optim, total_steps)

    def after_unfreezing(factor: Callable[[int], float], warmup: int) -> Callable[[int], float]:
        return lambda step: max(0.0, min(factor(step), factor(warmup - 1) * (step - unfreeze_after + 1) / warmup))

    own = optim if optim.encoder_warmup_steps is None else replace(optim, warmup_steps=optim.encoder_warmup_steps)
    of_part = {
        NEW: factor,
        "encoder": after_unfreezing(lr_factor(own, total_steps, hidden_size), warmup_steps(own, total_steps)),
        "decoder": after_unfreezing(factor, warmup),
    }
    parts = [group.get("name", NEW).partition("_")[0] for group in optimizer.param_groups]
    return Schedule(optimizer, [of_part[part] for part in parts])
