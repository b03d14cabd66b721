"""GELU and log probabilities of a decoding step on a CPU, each in one pass (``kernels/elementwise.cpp``).

    with gelu_in_one_pass(model.decoder):
        model.generate(...)

For 64 rows in bfloat16 torch takes 0.27 ms for GPT-2's GELU and 3.7 ms for log probabilities of its vocabulary, one
layer and one step (docs/performance.md). Values are torch's but for rounding.

Shapes: R rows, V vocabulary.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import GELUActivation

from warmstart.model.cpu_kernels import are_plain, cpu_kernels

_DTYPES = (torch.float32, torch.bfloat16)


def log_probabilities(logits_RV: Tensor) -> Tensor:
    """``log_softmax`` over the vocabulary, in float32, for a search, which needs no gradient."""
    kernels = cpu_kernels() if logits_RV.device.type == "cpu" else None
    if kernels and are_plain(logits_RV) and logits_RV.dtype in _DTYPES and logits_RV.stride(1) == 1:
        return kernels.log_softmax(logits_RV)
    return torch.log_softmax(logits_RV, dim=-1, dtype=torch.float32)


@contextmanager
def gelu_in_one_pass(decoder: PreTrainedModel) -> Iterator[None]:
    """Inside, every GELU of ``decoder`` is the kernel's, where there is one and no gradient is wanted."""
    changed: list[nn.Module] = []
    if decoder.device.type == "cpu" and cpu_kernels() is not None:
        for module in decoder.modules():
            exact = type(module) is GELUActivation and module.act is F.gelu
            if (exact or type(module) is nn.GELU) and "forward" not in vars(module):
                module.forward = _one_pass(module.forward, getattr(module, "approximate", "none") == "tanh")
                changed.append(module)
    try:
        yield
    finally:
        for module in changed:
            del module.forward


def _one_pass(plain: Callable[[Tensor], Tensor], by_tanh: bool) -> Callable[[Tensor], Tensor]:
    kernels = cpu_kernels()
    assert kernels is not None

    def forward(input: Tensor) -> Tensor:
        served = are_plain(input) and input.dtype in _DTYPES and input.is_contiguous() and not torch.is_grad_enabled()
        return kernels.gelu(input, by_tanh=by_tanh) if served else plain(input)

    return forward
