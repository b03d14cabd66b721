"""GELU's tanh approximation and log probabilities on a CPU, each in one pass (``csrc/elementwise.cpp``).

    with gelu_in_one_pass(model.decoder):
        model.generate(...)

torch needs several passes for bfloat16 (docs/performance.md has the figures); its exact GELU is fast already. Results
equal torch's up to rounding.

Shapes: R sequences, V vocabulary.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from warmstart.cpu.kernels import CpuKernels, are_plain, cpu_kernels
from warmstart.shared_change import is_inside, shared_change

_NAME = "gelu_in_one_pass"
_DTYPES = (torch.float32, torch.bfloat16)


def log_probabilities(logits_RV: Tensor) -> Tensor:
    """Compute ``log_softmax`` over the vocabulary in float32, without a gradient."""
    kernels = cpu_kernels() if are_plain(logits_RV) else None
    if kernels is not None and logits_RV.dtype in _DTYPES and logits_RV.stride(1) == 1:
        return kernels.log_softmax(logits_RV)
    return torch.log_softmax(logits_RV, dim=-1, dtype=torch.float32)


@contextmanager
def gelu_in_one_pass(decoder: PreTrainedModel) -> Iterator[None]:
    """Use the kernel, if it is built, for every tanh GELU of ``decoder`` within the context; not for gradients."""
    kernels = cpu_kernels()
    if decoder.device.type != "cpu" or kernels is None:
        yield
        return
    with shared_change(decoder, _NAME, lambda: _exchange(decoder, kernels)):
        yield


def _exchange(decoder: PreTrainedModel, kernels: CpuKernels) -> Callable[[], None]:
    changed: list[nn.Module] = []
    for module in decoder.modules():
        if type(module) is nn.GELU and module.approximate == "tanh" and "forward" not in vars(module):
            setattr(module, "forward", _one_pass(module.forward, kernels))  # noqa: B010 - nn.Module declares it as a method
            changed.append(module)

    def undo() -> None:
        for module in changed:
            del module.forward

    return undo


def _one_pass(plain: Callable[[Tensor], Tensor], kernels: CpuKernels) -> Callable[[Tensor], Tensor]:
    def forward(input: Tensor) -> Tensor:
        served = are_plain(input) and input.dtype in _DTYPES and input.is_contiguous() and not torch.is_grad_enabled()
        return kernels.gelu(input) if served and is_inside(_NAME) else plain(input)

    return forward
