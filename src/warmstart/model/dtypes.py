"""Cast a model to another floating-point dtype, except for the frequencies of rotary positions.

    with computing_in(model, torch.bfloat16):
        model.generate(...)

``model.to(torch.bfloat16)`` would round these frequencies by up to 0.4 %, and at position 1,000 some channels of a head
would be rotated by a radian too much. transformers keeps them in float32 when it loads a model in bfloat16.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn

_FREQUENCIES = "inv_freq"  # part of the name of these buffers in transformers


def to_dtype(module: nn.Module, dtype: torch.dtype) -> None:
    """Cast the floating-point parameters and buffers of ``module``, in place, except for rotary frequencies."""
    for tensor in _cast(module):
        tensor.data = tensor.data.to(dtype)


@contextmanager
def computing_in(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Cast ``model`` to ``dtype`` within the context; the original values are kept in memory and restored after it."""
    own = [(tensor, tensor.data) for tensor in _cast(model) if tensor.dtype != dtype]
    try:
        to_dtype(model, dtype)
        yield
    finally:
        for tensor, data in own:
            tensor.data = data


def _cast(module: nn.Module) -> list[Tensor]:
    buffers = (buffer for name, buffer in module.named_buffers() if _FREQUENCIES not in name)
    return [tensor for tensor in chain(module.parameters(), buffers) if tensor.is_floating_point()]
