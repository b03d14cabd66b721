"""Dropout on a CPU, faster than torch's and with nothing kept for the backward pass.

    kept = kept_bits(values.numel(), share, generator, values.dtype)
    keep_(values, kept.view(values.shape))      # zero where the mask drops

torch draws one random number for each element, in one thread. Here 64 random bits serve four elements, a mask has all
bits of an element set or none, and dropping is a bitwise "and". Large masks are drawn in pieces by all threads.
``LeanDropout`` draws its mask again in the backward pass, from the seed, instead of keeping it.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_STEPS = 2**16  # 16 random bits an element: the share that is dropped is a multiple of 1/65536
_PIECE = 2**18  # draws by one generator; a mask follows from its seed, however many threads there are
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes of a number


def dropped_share(dropout: float) -> float:
    """Return the share that is dropped: ``dropout`` as the nearest multiple of 1/65536."""
    return min(round(dropout * _STEPS), _STEPS - 1) / _STEPS


def kept_bits(count: int, share: float, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Return a mask for ``count`` numbers of ``dtype``: integers of its size, -1 for a number that is kept, else 0."""
    threshold = round(share * _STEPS) - _STEPS // 2
    kept = _random_bits(-(-count // 4), generator).view(torch.int16)
    # A comparison would make bools, which are slow to apply; these operations are in place and fast.
    kept.clamp_(threshold - 1, threshold).sub_(threshold).bitwise_not_()
    return kept[:count].to(_BITS[dtype.itemsize])


def _random_bits(count: int, generator: torch.Generator) -> Tensor:
    """Return ``count`` random int64."""
    bits = torch.empty(count, dtype=torch.int64)
    if count <= _PIECE:
        return bits.random_(-(2**63), None, generator=generator)
    pieces = bits.split(_PIECE)
    seeds = torch.randint(2**62, (len(pieces),), generator=generator).tolist()

    def draw(piece: Tensor, seed: int) -> None:
        piece.random_(-(2**63), None, generator=torch.Generator().manual_seed(seed))

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # one that is kept would not live through a fork
        list(pool.map(draw, pieces, seeds))
    return bits


def keep_(values: Tensor, kept: Tensor) -> Tensor:
    """Set ``values`` to zero, in place, where the bits of ``kept`` are."""
    values.view(kept.dtype).bitwise_and_(kept)
    return values


class LeanDropout(nn.Dropout):
    """``nn.Dropout`` with such a mask if it trains on a CPU and is not compiled; otherwise torch's own."""

    def forward(self, input: Tensor) -> Tensor:
        """Drop from a tensor of any shape; torch's generator gives one number, the seed of the whole mask."""
        if not self.training:
            return input
        share = dropped_share(self.p)
        served = share > 0 and self.p < 1 and input.device.type == "cpu" and input.itemsize in _BITS
        if not served or self.inplace or torch.compiler.is_compiling():
            return super().forward(input)
        dropped: Tensor = _Dropout.apply(input, share, int(torch.randint(2**62, ())))
        return dropped


def exchange_dropout(submodel: nn.Module) -> None:
    """Replace every ``nn.Dropout`` of ``submodel`` by a :class:`LeanDropout`."""
    for module in list(submodel.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, LeanDropout(child.p, child.inplace).train(child.training))


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, share: float, seed: int) -> Tensor:
        ctx.chosen = share, seed
        return _dropped(input, share, seed)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        return _dropped(grad, *ctx.chosen), None, None


def _dropped(values: Tensor, share: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    kept = kept_bits(values.numel(), share, generator, values.dtype).view(values.shape)
    return torch.bitwise_and(values.view(kept.dtype), kept).view(values.dtype).mul_(1 / (1 - share))
