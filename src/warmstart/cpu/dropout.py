"""Dropout on a CPU that is faster than torch's and stores no mask for the backward pass.

    kept = kept_bits(values.numel(), share, generator, values.dtype)
    keep_(values, kept.view(values.shape))      # set the others to zero

torch draws one random number per element, in one thread. Here 64 random bits are used for four elements. A mask has
either all bits of an element set or none, so that a bitwise "and" applies it. All threads draw large masks in pieces.
``LeanDropout`` draws its mask again in the backward pass, from the seed.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_STEPS = 2**16  # 16 random bits per element: the dropout probability is a multiple of 1/65536
_PIECE = 2**18  # numbers drawn by one generator, so that a mask does not depend on the number of threads
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by element size in bytes


def dropped_share(dropout: float) -> float:
    """Round a dropout probability to a multiple of 1/65536."""
    return min(round(dropout * _STEPS), _STEPS - 1) / _STEPS


def kept_bits(count: int, share: float, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Draw a mask for elements of ``dtype``.

    Args:
        count: Number of elements.
        share: Dropout probability, see ``dropped_share``.
        generator: A CPU generator.
        dtype: Dtype of the elements.

    Returns:
        (count,) integers of the size of ``dtype``: -1 for an element that is kept, 0 for one that is dropped.
    """
    threshold = round(share * _STEPS) - _STEPS // 2
    kept = _random_bits(-(-count // 4), generator).view(torch.int16)
    # A comparison would return bools, which are slow to apply. These operations work in place.
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

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # not kept, because threads do not survive a fork
        list(pool.map(draw, pieces, seeds))
    return bits


def keep_(values: Tensor, kept: Tensor) -> Tensor:
    """Set ``values`` to zero, in place, where ``kept`` (see ``kept_bits``) is zero."""
    values.view(kept.dtype).bitwise_and_(kept)
    return values


class LeanDropout(nn.Dropout):
    """``nn.Dropout`` with such a mask while training on a CPU without torch.compile; otherwise torch's own."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply dropout to a tensor of any shape. One number of torch's generator seeds the mask."""
        if not self.training:
            return input
        share = dropped_share(self.p)
        served = share > 0 and self.p < 1 and input.device.type == "cpu" and input.itemsize in _BITS
        if not served or self.inplace or torch.compiler.is_compiling():
            return super().forward(input)
        dropped: Tensor = _Dropout.apply(input, share, int(torch.randint(2**62, ())))
        return dropped


def exchange_dropout(submodel: nn.Module) -> None:
    """Replace every ``nn.Dropout`` in ``submodel`` by a ``LeanDropout``, in place."""
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
