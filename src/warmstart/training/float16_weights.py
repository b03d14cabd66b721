"""Lightning's precisions bf16-true and 16-true, with the frequencies of rotary positions kept in float32.

Lightning would cast these too; ``warmstart.model.dtypes`` explains what that breaks.
"""

from typing import Any

from lightning.pytorch.plugins.precision import HalfPrecision
from torch import nn

from warmstart.model.dtypes import to_dtype


class TrueHalfPrecision(HalfPrecision):
    """Keep weights, gradients and optimizer state in 16 bits."""

    def convert_module(self, module: nn.Module) -> nn.Module:
        """Cast the module in place, except for rotary frequencies."""
        to_dtype(module, self._desired_input_dtype)
        return module


def half_precision_plugins(precision: str) -> list[Any]:
    """Return the plugin for ``bf16-true`` or ``16-true``, and no plugin for any other precision."""
    if precision in ("bf16-true", "16-true"):
        return [TrueHalfPrecision(precision)]  # type: ignore[arg-type]
    return []
