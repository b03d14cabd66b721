"""Prepack the weights of a decoder's linear layers while it generates on a CPU.

    with prepacked_weights(model.decoder):
        model.generate(...)

In a product of a matrix with few rows, torch spends more time on packing the matrix than on the product, at every step
(docs/performance.md). Here packed weights are kept: for our kernel, if it is built, with float32 and up to ``FEW`` rows
(``cpu_kernels``); otherwise for oneDNN, as torch.compile's freezing does. They are a second copy of the weights, so
they are freed after the context and take at most ``LARGEST`` bytes. Results equal ``F.linear`` up to the order of sums.
"""

import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from warmstart.compat.torch import can_prepack, prepack, prepacked_linear, version_of
from warmstart.cpu.kernels import are_plain, cpu_kernels
from warmstart.shared_change import shared_change

FEWEST, MOST = 2, 512  # numbers of rows for which prepacking pays off
FEW = 32  # up to this number of rows our kernel is faster than oneDNN's
LARGEST = 2 * 2**30  # bytes
_DTYPES = (torch.float32, torch.bfloat16)


Product = Callable[[Tensor], Tensor]


class _PrepackedWeight:
    """One matrix, prepacked for a number of rows."""

    def __init__(self, weight: Tensor, weight_CK: Tensor, bias: Tensor | None, rows: int) -> None:
        self.weight = weight  # referenced, so that its id is not reused
        self.bytes = weight_CK.numel() * weight_CK.element_size()
        kernels = cpu_kernels()
        given = [weight_CK] if bias is None else [weight_CK, bias]
        self.product: Product
        ours = kernels is not None and rows <= FEW and are_plain(*given)
        if kernels and ours and all(x.dtype == torch.float32 for x in given) and (bias is None or bias.is_contiguous()):
            prepacked = kernels.prepack(weight_CK)
            self.product = lambda input: kernels.product(input, prepacked, bias, len(weight_CK))
        else:
            theirs = prepack(weight_CK, rows)
            self.product = lambda input: prepacked_linear(input, theirs, bias)


# Concurrent calls of several threads share prepacked weights. The number of rows is part of the key, because results
# must not depend on which call came first.
_shared: "weakref.WeakValueDictionary[tuple[int, int, int, int], _PrepackedWeight]" = weakref.WeakValueDictionary()


class PrepackedWeights(dict[str, _PrepackedWeight]):
    """The prepacked weights of one call by layer name, and their size in bytes."""

    bytes = 0

    def __init__(self) -> None:
        super().__init__()
        self.plain_calls: Counter[str] = Counter()

    def has_room(self, weight: Tensor) -> bool:
        """Return whether the total with a copy of ``weight`` is at most ``LARGEST`` bytes."""
        return self.bytes + weight.numel() * weight.element_size() <= LARGEST

    def add(self, name: str, module: Any, weight_CK: Tensor, rows: int) -> None:
        """Prepack the weight of a linear layer.

        Args:
            name: Name of the layer.
            module: The layer.
            weight_CK: Its weight (C, K); transposed for a ``Conv1D``.
            rows: Number of rows that the layout is made for.
        """
        weight = module.weight
        key = id(module), id(weight), version_of(weight), rows
        found = _shared.get(key)
        if found is None:
            found = _shared[key] = _PrepackedWeight(weight, weight_CK, module.bias, rows)
        self[name] = found
        self.bytes += found.bytes


class _Running(threading.local):
    def __init__(self) -> None:
        self.weights: dict[int, PrepackedWeights] = {}  # by the decoder's id


_running = _Running()


@contextmanager
def prepacked_weights(decoder: PreTrainedModel) -> Iterator[PrepackedWeights]:
    """Use prepacked weights in the linear layers of ``decoder`` within the context.

    A layer prepacks its weight at the first call with one token, or at the second call. Applies to calls from this
    thread; a nested context uses the weights of the outer one.

    Yields:
        The prepacked weights by name, filled as layers are called.
    """
    outer = _running.weights.get(id(decoder))
    if outer is not None or decoder.device.type != "cpu" or not can_prepack():
        yield PrepackedWeights() if outer is None else outer
        return
    _running.weights[id(decoder)] = prepacked = PrepackedWeights()
    try:
        with shared_change(decoder, "prepacked", lambda: _exchange(decoder)):
            yield prepacked
    finally:
        del _running.weights[id(decoder)]


def _exchange(decoder: PreTrainedModel) -> Callable[[], None]:
    changed: list[nn.Module] = []
    for name, module in decoder.named_modules():
        if type(module) in (nn.Linear, Conv1D) and "forward" not in vars(module):
            module.forward = _prepacking(name, module, id(decoder))
            changed.append(module)

    def undo() -> None:
        for module in changed:
            del module.forward

    return undo


def _prepacking(name: str, module: Any, decoder_id: int) -> Product:
    plain: Product = module.forward

    def forward(input: Tensor) -> Tensor:
        prepacked = _running.weights.get(decoder_id)
        rows = input.numel() // max(1, input.shape[-1])
        if (
            prepacked is None
            or not FEWEST <= rows <= MOST
            or not are_plain(input, module.weight)
            or input.dtype != module.weight.dtype
            or input.dtype not in _DTYPES
            or input.shape[-1] != module.weight.shape[0 if isinstance(module, Conv1D) else 1]
            or torch.is_grad_enabled()
            or torch.is_autocast_enabled("cpu")
        ):
            return plain(input)
        if name not in prepacked:
            prepacked.plain_calls[name] += 1
            weight = module.weight.t() if isinstance(module, Conv1D) else module.weight
            # Layers that compute the source's keys and values are called once, so prepacking would not pay off.
            once = prepacked.plain_calls[name] == 1 and not (input.dim() == 3 and input.shape[1] == 1)
            if once or not prepacked.has_room(weight):
                return plain(input)
            prepacked.add(name, module, weight.detach(), rows)
        return prepacked[name].product(input)

    return forward
