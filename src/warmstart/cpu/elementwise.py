"""GELU by tanh and log probabilities of a decoding step on a CPU, each in one pass (``csrc/elementwise.cpp``).

    with gelu_in_one_pass(model.decoder):
        model.generate(...)

For 64 rows in bfloat16 torch takes 2.7 ms for GELU by tanh in GPT-2's layers and 2.3 ms for log probabilities of its
vocabulary, where one pass takes 1.0 and 1.3 (docs/performance.md). GELU by erf is as fast in torch. Values are torch's
but for rounding.

Shapes: R rows, V vocabulary.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from warmstart.cpu.build import are_plain, cpu_kernels
from warmstart.shared_change import is_inside, shared_change

_NAME = "gelu_in_one_pass"
_DTYPES = (torch.float32, torch.bfloat16)


def log_probabilities(logits_RV: Tensor) -> Tensor:
    """``log_softmax`` over the vocabulary, in float32, for a search, which needs no gradient."""
    kernels = cpu_kernels() if logits_RV.device.type == "cpu" else None
    if kernels and are_plain(logits_RV) and logits_RV.dtype in _DTYPES and logits_RV.stride(1) == 1:
        return kernels.log_softmax(logits_RV)
    return torch.log_softmax(logits_RV, dim=-1, dtype=torch.float32)


@contextmanager
def gelu_in_one_pass(decoder: PreTrainedModel) -> Iterator[None]:
    """Inside, every GELU by tanh of ``decoder`` is the kernel's, where there is one and no gradient is wanted."""
    if decoder.device.type != "cpu" or cpu_kernels() is None:
        yield
        return
    with shared_change(decoder, _NAME, lambda: _exchange(decoder)):
        yield


def _exchange(decoder: PreTrainedModel) -> Callable[[], None]:
    changed: list[nn.Module] = []
    for module in decoder.modules():
        if type(module) is nn.GELU and module.approximate == "tanh" and "forward" not in vars(module):
            setattr(module, "forward", _one_pass(module.forward))  # noqa: B010 - the type knows it as a method
            changed.append(module)

    def undo() -> None:
        for module in changed:
            del module.forward

    return undo


def _one_pass(plain: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    kernels = cpu_kernels()
    assert kernels is not None

    def forward(input: Tensor) -> Tensor:
        served = are_plain(input) and input.dtype in _DTYPES and input.is_contiguous() and not torch.is_grad_enabled()
        return kernels.gelu(input) if served and is_inside(_NAME) else plain(input)

    return forward
