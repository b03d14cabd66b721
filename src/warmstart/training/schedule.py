"""The learning rate over optimizer steps: linear warm-up, then linear, cosine, inverse-sqrt or constant.

``total_steps`` comes from the caller, who counts batches; Lightning's own estimate replays data on resume.
"""

import math
from collections.abc import Callable

from warmstart.training.settings import Decay, OptimSettings


def rate_factor(optim: OptimSettings, total_steps: int) -> Callable[[int], float]:
    """The factor on the peak rates at optimizer step ``step`` (0-based)."""
    warmup = optim.warmup_steps
    if warmup is None:
        warmup = round(optim.warmup_fraction * total_steps)
    warmup = max(warmup, 1)

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
