"""Train only new parameters for the first optimizer steps, then unfreeze the pretrained encoder and decoder.

Until random cross-attention has learnt something, its gradients are noise, which would damage pretrained weights.
Only the number of steps decides, so a resumed fit unfreezes at the same step.
"""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import SingleDeviceStrategy

from warmstart.training.optimizer import NEW


class UnfreezePretrained(Callback):
    """Freezes pretrained parameters for the first ``steps`` optimizer steps (``bridge.warmup_steps``).

    The optimizer skips them: they get neither weight decay nor optimizer state. On one device their gradients are not
    computed either. DDP fixes the set of gradients when it wraps the model, so there they are computed and dropped.

    Args:
        steps: optimizer steps before they unfreeze.
    """

    def __init__(self, steps: int) -> None:
        """Keep the number; the parameters are found when training starts."""
        self.steps = steps
        self._pretrained: list[torch.nn.Parameter] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Find the pretrained parameters in the optimizer's groups."""
        groups = trainer.optimizers[0].param_groups
        self._pretrained = [p for group in groups if not group["name"].startswith(NEW) for p in group["params"]]

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
        """Freeze or unfreeze them, on one device."""
        if isinstance(trainer.strategy, SingleDeviceStrategy):
            self._set_trainable(trainer.global_step >= self.steps)

    def on_before_optimizer_step(self, trainer: L.Trainer, *args: Any) -> None:
        """Drop their gradients while they are frozen."""
        # Lightning clips after this, so the gradient norm only covers new parameters.
        if trainer.global_step < self.steps:
            for parameter in self._pretrained:
                parameter.grad = None

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave them trainable."""
        self._set_trainable(True)

    def _set_trainable(self, trainable: bool) -> None:
        for parameter in self._pretrained:
            parameter.requires_grad_(trainable)
