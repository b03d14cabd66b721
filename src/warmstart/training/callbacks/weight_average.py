"""Exponential moving average of the weights (``trainer.ema_decay``), which is validated, saved as best and exported.

The decay of update n, counted from 0, is ``min(decay, (1 + n) / (10 + n))``, as in TensorFlow's
``ExponentialMovingAverage``. So early averages forget the initial weights; with a constant decay of
0.999 they would still be half of the average after 700 steps.
"""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from warmstart.runs.checkpoint_io import AVERAGE


def decay_of_update(decay: float, number: int) -> float:
    """Return the decay of an update; ``number`` counts earlier updates."""
    return min(decay, (1 + number) / (10 + number))


class WeightAverage(Callback):
    """Averages the weights after each optimizer step, and replaces them by their average during validations.

    Only parameters that train are averaged, each once if it is tied. Buffers are those of the model. A checkpoint holds
    the model's own weights, from which a fit resumes, and the averages in ``averaged_weights``.

    Lightning's ``EMAWeightAveraging`` is not used. Lightning 2.5 does not have it. It restores the model's own weights
    before ``on_validation_epoch_end`` of the module, which generates the validation summaries. It has no warm-up of the
    decay, and copies frozen parameters too.

    Args:
        decay: share of the old average in a new one, from 0 to below 1, once the warm-up is over.
    """

    def __init__(self, decay: float) -> None:
        """Keep the decay; the averages start with the fit."""
        self.decay = decay
        self.updates = 0
        self._names: list[str] = []
        self._averages: dict[str, Tensor] = {}  # during a validation the model's own weights
        self._validating = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Find the parameters that train, before ``bridge.warmup_steps`` freezes some of them for a while."""
        if stage == "fit":
            self._names = [name for name, parameter in pl_module.named_parameters() if parameter.requires_grad]
            self._averages, self.updates, self._validating = {}, 0, False

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the averages from the model's weights, or move those of a checkpoint to the device."""
        parameters = dict(pl_module.named_parameters())
        for name in self._names:
            parameter = parameters[name].detach()
            known = self._averages.get(name)
            self._averages[name] = parameter.clone() if known is None else known.to(parameter)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *args: Any, **kwargs: Any) -> None:
        """Update the averages after an optimizer step."""
        if not pl_module.between_steps:
            return
        parameters = dict(pl_module.named_parameters())
        update = get_ema_multi_avg_fn(decay_of_update(self.decay, self.updates))
        update([*self._averages.values()], [parameters[name] for name in self._averages], self.updates)
        self.updates += 1

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Replace the weights by their averages."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._validating = True
            self._exchange(pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restore the weights; checkpoint callbacks come after this one."""
        self._restore(pl_module)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Restore the weights if a validation failed."""
        self._restore(pl_module)

    def _restore(self, module: L.LightningModule) -> None:
        if self._validating:
            self._validating = False
            self._exchange(module)

    def _exchange(self, module: L.LightningModule) -> None:
        parameters = dict(module.named_parameters())
        for name, average in self._averages.items():
            self._averages[name], parameters[name].data = parameters[name].data, average

    def state_dict(self) -> dict[str, Any]:
        """Return the number of updates."""
        return {"updates": self.updates}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the number of updates."""
        self.updates = state_dict["updates"]

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the averages, under every name that a tied parameter has."""
        if not self._averages:
            return
        self._exchange(pl_module)
        checkpoint[AVERAGE] = pl_module.state_dict()
        self._exchange(pl_module)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take the averages of a checkpoint; without any, they start from its weights."""
        found = checkpoint.get(AVERAGE, {})
        self._averages = {name: found[name] for name in self._names if name in found}
