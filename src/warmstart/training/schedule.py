"""The learning rate over optimizer steps: linear warm-up, then linear, cosine, inverse-sqrt or constant.

``total_steps`` comes from the caller, who counts batches; Lightning's own estimate replays data on resume.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from warmstart.config.training import Decay, OptimSettings
from warmstart.training.optimizer import NEW


def warmup_steps(optim: OptimSettings, total_steps: int) -> int:
    """Optimizer steps of warm-up, at least one: the last of them has the peak rate."""
    steps = round(optim.warmup_fraction * total_steps) if optim.warmup_steps is None else optim.warmup_steps
    return max(steps, 1)


def rate_factor(optim: OptimSettings, total_steps: int) -> Callable[[int], float]:
    """The factor on the peak rates at optimizer step ``step`` (0-based).

    Linear and cosine reach zero at ``total_steps``, the first step that is not taken.
    """
    warmup = warmup_steps(optim, total_steps)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        progress = min((step - warmup) / max(total_steps - warmup, 1), 1.0)
        match optim.decay:
            case Decay.linear:
                return 1 - progress
            case Decay.cosine:
                return 0.5 * (1 + math.cos(math.pi * progress))
            case Decay.inverse_sqrt:
                return math.sqrt(warmup / (step + 1))
            case Decay.constant:
                return 1.0

    return factor


class Schedule(LambdaLR):
    """Goes on at a checkpoint's step, with the peak rates and the shape that are asked for now."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict | {"base_lrs": self.base_lrs})
        rates = [peak * factor(self.last_epoch) for peak, factor in zip(self.base_lrs, self.lr_lambdas, strict=True)]
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self._last_lr = rates


def build_schedule(
    optimizer: torch.optim.Optimizer, optim: OptimSettings, total_steps: int, thaw_after: int = 0
) -> Schedule:
    """The schedule of every group of ``optimizer``; step it after each optimizer step.

    Pretrained groups stand still for ``thaw_after`` steps, then warm up themselves, below the rate of all.
    """
    factor, warmup = rate_factor(optim, total_steps), warmup_steps(optim, total_steps)

    def after_thaw(step: int) -> float:
        return max(0.0, min(factor(step), (step - thaw_after + 1) / warmup))

    each = [factor if group.get("name", NEW).startswith(NEW) else after_thaw for group in optimizer.param_groups]
    return Schedule(optimizer, each)
