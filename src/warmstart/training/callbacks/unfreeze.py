"""New parts first: for the first optimizer steps both pretrained halves stand still, then they train too.

Random cross-attention sends noise through both halves until it has learnt something; that noise need not reach weights
that are good already. Which steps those are follows from the step count alone, so a resumed fit thaws where it should.
"""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import SingleDeviceStrategy

from warmstart.training.optimizer import NEW


class Thaw(Callback):
    """Lets only new parts train for the first ``steps`` optimizer steps (``bridge.warmup_steps``).

    The halves get no step at all: neither weight decay nor moments. On one device no gradient is computed for them
    either; DDP decides when it wraps the model which gradients it waits for, so there they are computed and dropped.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self._still: list[torch.nn.Parameter] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        groups = trainer.optimizers[0].param_groups
        self._still = [p for group in groups if not group["name"].startswith(NEW) for p in group["params"]]

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
        if isinstance(trainer.strategy, SingleDeviceStrategy):
            self._let_train(trainer.global_step >= self.steps)

    def on_before_optimizer_step(self, trainer: L.Trainer, *args: Any) -> None:
        # Lightning clips after this, so the norm is that of the new parts alone.
        if trainer.global_step < self.steps:
            for parameter in self._still:
                parameter.grad = None

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._let_train(True)

    def _let_train(self, trains: bool) -> None:
        for parameter in self._still:
            parameter.requires_grad_(trains)
