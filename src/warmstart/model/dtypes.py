"""A model's weights in another floating-point type, and what stays exact: the frequencies of rotary positions.

    with computing_in(model, torch.bfloat16):
        model.generate(...)

``model.to(torch.bfloat16)`` rounds them with the weights: by up to 0.4 %, so that at position 1,000 some channels of a
head are turned by more than a radian too much. transformers keeps them in float32 where it loads in bfloat16, and so
does this.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn

_FREQUENCIES = "inv_freq"  # in the name of every such buffer of transformers


def to_dtype(module: nn.Module, dtype: torch.dtype) -> None:
    """Cast the floating-point weights and buffers of ``module`` in place, all but rotary frequencies."""
    for tensor in _cast(module):
        tensor.data = tensor.data.to(dtype)


@contextmanager
def computing_in(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Inside, ``model`` is in ``dtype``; behind, it has its own values back, which stay in memory meanwhile."""
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
