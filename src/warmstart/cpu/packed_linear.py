"""Matrices of a decoder laid out for few rows while it generates on a CPU.

    with packed_matrices(model.decoder):
        model.generate(...)

A product of a matrix with a few rows is over before the library has laid the matrix out for itself, and it does so
again at every step: 16 rows through GPT-2's output matrix took 38 ms in float32, 15 with the layout kept
(docs/performance.md). It is that of our own kernel for float32 and up to 32 rows where the machine can have it
(``cpu_kernels``), else oneDNN's, which torch.compile's freezing uses. The layout is a second copy of what a step reads,
so it lives no longer than one ``generate`` and is made for ``LARGEST`` bytes at most. Values are those of ``F.linear``
but for the order of sums.
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

from warmstart.cpu.build import are_plain, cpu_kernels
from warmstart.shared_change import shared_change

FEWEST, MOST = 2, 512  # rows for which a kept layout is worth its copy
FEW = 32  # rows for which our kernel is the faster: 31 ms to 38 at 16 rows, 92 to 81 at 64 (all of GPT-2's)
LARGEST = 2 * 2**30
_DTYPES = (torch.float32, torch.bfloat16)


def can_pack() -> bool:
    """Whether this torch has the operations that torch.compile's freezing uses; they are not part of its public API."""
    names = ("_reorder_linear_weight", "_linear_pointwise")
    return torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in names)


Product = Callable[[Tensor], Tensor]


class _Prepacked:
    """One matrix, prepacked for a number of rows; calling it is the product with such rows."""

    def __init__(self, weight: Tensor, weight_CK: Tensor, bias: Tensor | None, rows: int) -> None:
        self.weight = weight  # held so that its id stays its own while this lives
        self.bytes = weight_CK.numel() * weight_CK.element_size()
        kernels = cpu_kernels()
        given = [weight_CK] if bias is None else [weight_CK, bias]
        self.product: Product
        if kernels and rows <= FEW and are_plain(*given) and all(x.dtype == torch.float32 for x in given):
            ours = kernels.laid_out(weight_CK)
            self.product = lambda input: kernels.product(input, ours, bias, len(weight_CK))
        else:
            theirs = torch.ops.mkldnn._reorder_linear_weight(weight_CK, rows)
            self.product = lambda input: torch.ops.mkldnn._linear_pointwise(input, theirs, bias, "none", [], "")


# Calls of several threads share a matrix while one of them holds it. Rows are part of the key: the sums of a call must
# not depend on which other call came first.
_shared: "weakref.WeakValueDictionary[tuple[int, int, int, int], _Prepacked]" = weakref.WeakValueDictionary()


class Layouts(dict[str, _Prepacked]):
    """The prepacked matrices of one call by the layer's name, and the bytes that they hold."""

    bytes = 0

    def __init__(self) -> None:
        super().__init__()
        self.plain_calls: Counter[str] = Counter()

    def has_room(self, weight: Tensor) -> bool:
        return self.bytes + weight.numel() * weight.element_size() <= LARGEST

    def add(self, name: str, module: Any, weight_CK: Tensor, rows: int) -> None:
        """Prepack the weight of ``module``, ``weight_CK`` as a product needs it, for about so many rows."""
        weight = module.weight
        version = 0 if weight.is_inference() else weight._version
        key = id(module), id(weight), version, rows
        found = _shared.get(key)
        if found is None:
            found = _shared[key] = _Prepacked(weight, weight_CK, module.bias, rows)
        self[name] = found
        self.bytes += found.bytes


class _Running(threading.local):
    def __init__(self) -> None:
        self.layouts: dict[int, Layouts] = {}  # by the decoder's id


_running = _Running()


@contextmanager
def packed_matrices(decoder: PreTrainedModel) -> Iterator[Layouts]:
    """Inside, linear layers of ``decoder`` keep their layout from the first token of few rows on, others from their
    second call. It holds for this thread; a call inside another one's continues with its layouts.

    Yields the layouts that were made.
    """
    outer = _running.layouts.get(id(decoder))
    if outer is not None or decoder.device.type != "cpu" or not can_pack():
        yield Layouts() if outer is None else outer
        return
    _running.layouts[id(decoder)] = layouts = Layouts()
    try:
        with shared_change(decoder, "prepacked", lambda: _exchange(decoder)):
            yield layouts
    finally:
        del _running.layouts[id(decoder)]


def _exchange(decoder: PreTrainedModel) -> Callable[[], None]:
    changed: list[nn.Module] = []
    for name, module in decoder.named_modules():
        if type(module) in (nn.Linear, Conv1D) and "forward" not in vars(module):
            module.forward = _packing(name, module, id(decoder))
            changed.append(module)

    def undo() -> None:
        for module in changed:
            del module.forward

    return undo


def _packing(name: str, module: Any, decoder_id: int) -> Product:
    plain: Product = module.forward

    def forward(input: Tensor) -> Tensor:
        layouts = _running.layouts.get(decoder_id)
        rows = input.numel() // max(1, input.shape[-1])
        if (
            layouts is None
            or not FEWEST <= rows <= MOST
            or input.dtype != module.weight.dtype
            or input.dtype not in _DTYPES
            or torch.is_grad_enabled()
            or torch.is_autocast_enabled("cpu")
        ):
            return plain(input)
        if name not in layouts:
            layouts.plain_calls[name] += 1
            weight = module.weight.t() if isinstance(module, Conv1D) else module.weight
            # Keys and values of the source are made once, which no layout is worth; one token of each row is a step.
            once = layouts.plain_calls[name] == 1 and not (input.dim() == 3 and input.shape[1] == 1)
            if once or not layouts.has_room(weight):
                return plain(input)
            layouts.add(name, module, weight.detach(), rows)
        return layouts[name].product(input)

    return forward
