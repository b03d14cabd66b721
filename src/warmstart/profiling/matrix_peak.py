"""Measure the peak speed of matrix products on this device, for the model FLOPs utilization (MFU).

Data sheets are not used, because their numbers are never reached and most CPUs have none. The peak is measured once per
process, in the precision of training. Other load on the machine lowers it.
"""

import functools
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from warmstart.config.precision import training_dtype

_SIZES = (512, 1024, 2048, 4096, 8192)  # rows and columns; the largest saturates any GPU
_LONGEST = 0.1  # seconds; a larger size is not tried if its product would take longer
_SECONDS = 0.35  # total time for all products


@dataclass(frozen=True)
class MatrixPeak:
    """The fastest of several products of square matrices."""

    flops_per_second: float
    size: int
    dtype: torch.dtype


def matrix_peak(device: torch.device, precision: str) -> MatrixPeak:
    """Return the peak of ``device``; the first call measures it. The global random state does not change.

    Args:
        device: where to measure.
        precision: a Lightning precision, such as ``bf16-mixed``.
    """
    return _measured(device, training_dtype(precision), torch.get_num_threads())


@functools.cache
@torch.no_grad()
def _measured(device: torch.device, dtype: torch.dtype, threads: int) -> MatrixPeak:
    generator = torch.Generator(device).manual_seed(0)
    factors: dict[int, tuple[Tensor, Tensor]] = {}
    best, ends = MatrixPeak(1.0, 0, dtype), time.perf_counter() + _SECONDS
    # Sizes alternate, so that a short load on the machine does not decide between them.
    while time.perf_counter() < ends or best.size == 0:
        for size in _SIZES:
            if best.size and 2 * size**3 / best.flops_per_second > _LONGEST:
                break
            if size not in factors:
                # Random values, because a GPU multiplies constants at a higher clock.
                a = torch.empty(size, size, device=device, dtype=dtype).normal_(generator=generator)
                factors[size] = a, a @ a  # the first product of a size also selects the kernel
            a, product = factors[size]
            _wait(device)
            start = time.perf_counter()
            torch.mm(a, a, out=product)
            _wait(device)
            flops_per_second = 2 * size**3 / (time.perf_counter() - start)
            if flops_per_second > best.flops_per_second:
                best = MatrixPeak(flops_per_second, size, dtype)
    del factors, a, product
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)  # memory/peak_bytes should cover only the training
    return best


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()
