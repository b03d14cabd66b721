"""How fast this device multiplies matrices at best: what a training step's own FLOPs are held against (MFU).

Measured, not looked up: a data sheet's number is never reached, and there is none for most processors. It is measured
once in a process, beside whatever else the machine does at that moment, in the precision that training computes in.
"""

import functools
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from warmstart.config.precision import training_dtype

_SIZES = (512, 1024, 2048, 4096, 8192)  # rows and columns; the largest saturates any GPU
_LONGEST = 0.1  # seconds of one product; a size that would take longer is not tried
_SECONDS = 0.35  # of all products


@dataclass(frozen=True)
class MatrixPeak:
    """The fastest of several products of square matrices."""

    flops_per_second: float
    size: int
    dtype: torch.dtype


def matrix_peak(device: torch.device, precision: str) -> MatrixPeak:
    """The peak of ``device``; measured at the first call, in half a second. It draws no global random number."""
    return _measured(device, training_dtype(precision), torch.get_num_threads())


@functools.cache
@torch.no_grad()
def _measured(device: torch.device, dtype: torch.dtype, threads: int) -> MatrixPeak:
    generator = torch.Generator(device).manual_seed(0)
    factors: dict[int, tuple[Tensor, Tensor]] = {}
    best, ends = MatrixPeak(1.0, 0, dtype), time.perf_counter() + _SECONDS
    # Sizes take turns, so that a moment in which the machine does something else decides nothing.
    while time.perf_counter() < ends or best.size == 0:
        for size in _SIZES:
            if best.size and 2 * size**3 / best.flops_per_second > _LONGEST:
                break
            if size not in factors:
                # Values as a model has them: a GPU multiplies constants at a higher clock.
                a = torch.empty(size, size, device=device, dtype=dtype).normal_(generator=generator)
                factors[size] = a, a @ a  # the first product of a size also chooses how
            a, product = factors[size]
            _wait(device)
            began = time.perf_counter()
            torch.mm(a, a, out=product)
            _wait(device)
            rate = 2 * size**3 / (time.perf_counter() - began)
            if rate > best.flops_per_second:
                best = MatrixPeak(rate, size, dtype)
    del factors, a, product
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)  # memory/peak_bytes is the training's
    return best


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()
