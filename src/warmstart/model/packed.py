"""Matrices of a decoder in oneDNN's own layout while it generates on a CPU, as torch.compile's freezing has them.

    with packed_matrices(model.decoder):
        model.generate(...)

A product of a matrix with a few rows is over before the library has laid the matrix out for itself, and it does so
again at every step: 16 rows through GPT-2's output matrix took 38 ms in float32, 15 with the layout kept
(docs/performance.md). The layout is a second copy of what a step reads, so it lives no longer than one ``generate`` and
is made for ``LARGEST`` bytes at most. Values are those of ``F.linear`` but for the order of sums.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

FEWEST, MOST = 2, 512  # rows for which a kept layout is worth its copy
LARGEST = 2 * 2**30
_DTYPES = (torch.float32, torch.bfloat16)


def can_pack() -> bool:
    """Whether this torch has the operations that torch.compile's freezing uses; they are not part of its public API."""
    names = ("_reorder_linear_weight", "_linear_pointwise")
    return torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in names)


@contextmanager
def packed_matrices(decoder: PreTrainedModel) -> Iterator[dict[str, Tensor]]:
    """Inside, linear layers of ``decoder`` keep their layout from their second call with few rows on.

    Yields the layouts that were made, by the layer's name.
    """
    packed: dict[str, Tensor] = {}
    changed: list[nn.Module] = []
    if decoder.device.type == "cpu" and can_pack():
        for name, module in decoder.named_modules():
            if type(module) in (nn.Linear, Conv1D) and "forward" not in vars(module):
                module.forward = _packing(name, module, packed)
                changed.append(module)
    try:
        yield packed
    finally:
        for module in changed:
            del module.forward


def _packing(name: str, module: Any, packed: dict[str, Tensor]) -> Callable[[Tensor], Tensor]:
    plain: Callable[[Tensor], Tensor] = module.forward
    calls = 0

    def forward(input: Tensor) -> Tensor:
        nonlocal calls
        rows = input.numel() // max(1, input.shape[-1])
        if (
            not FEWEST <= rows <= MOST
            or input.dtype != module.weight.dtype
            or input.dtype not in _DTYPES
            or torch.is_grad_enabled()
            or torch.is_autocast_enabled("cpu")
        ):
            return plain(input)
        if name not in packed:
            calls += 1
            weight = module.weight.t() if isinstance(module, Conv1D) else module.weight
            if calls == 1 or _bytes(*packed.values(), weight) > LARGEST:
                return plain(input)  # keys and values of the source are made once: no layout is worth it
            packed[name] = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), rows)
        return torch.ops.mkldnn._linear_pointwise(input, packed[name], module.bias, "none", [], "")

    return forward


def _bytes(*tensors: Tensor) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
