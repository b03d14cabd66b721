"""Lightning's precisions bf16-true and 16-true, but for the frequencies of rotary positions, which stay in float32.

Lightning casts them with the weights (:mod:`warmstart.model.dtypes` says what that does).
"""

from typing import Any

from lightning.pytorch.plugins.precision import HalfPrecision
from torch import nn

from warmstart.model.dtypes import to_dtype


class HalfWeights(HalfPrecision):
    """Weights, gradients and moments in 16 bits."""

    def convert_module(self, module: nn.Module) -> nn.Module:
        to_dtype(module, self._desired_input_dtype)
        return module


def half_weights(precision: str) -> list[Any]:
    """The plugin for a precision that is one of these, else none."""
    if precision in ("bf16-true", "16-true"):
        return [HalfWeights(precision)]  # type: ignore[arg-type]
    return []
