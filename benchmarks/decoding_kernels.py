"""Compare the compiled kernels of a decoding step with torch's operations, in turn in one process.

    python benchmarks/decoding_kernels.py

It measures GPT-2's attention at a step of 4 beams, its matrix products in float32 for several numbers of rows, and its
elementwise operations, each for all 12 layers. The limit is reading everything from memory once.
"""

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from warmstart import cpu
from warmstart.compat.torch import prepack, prepacked_linear
from warmstart.cpu.attention import attention_probabilities
from warmstart.cpu.kernels import CpuKernels, cpu_kernels

LAYERS, REPEATS = 12, 9
ATTENTION = (("cross", 1, 4, 512), ("self", 4, 1, 32))  # name; rows for each source, queries and keys, with 4 beams
MATRICES = [(2304, 768), (768, 768), (768, 768), (768, 768), (3072, 768), (768, 3072)] * LAYERS + [(50257, 768)]


def milliseconds(works: list[Callable[[], object]]) -> list[float]:
    """Return the median time of each, run in turn."""
    seconds: list[list[float]] = [[] for _ in works]
    for _ in range(REPEATS):
        for work, taken in zip(works, seconds, strict=True):
            began = time.perf_counter()
            work()
            taken.append(1e3 * (time.perf_counter() - began))
    return [statistics.median(taken) for taken in seconds]


def attention(kernels: CpuKernels, dtype: torch.dtype, rows: int, queries: int, keys: int) -> str:
    """Return the milliseconds of torch and of the kernel for all layers, and the megabytes of keys and values."""
    shape = (rows, 12, keys, 64)
    cache = [(torch.randn(shape).to(dtype), torch.randn(shape).to(dtype)) for _ in range(LAYERS)]
    query = torch.randn(rows, queries, 12, 64).to(dtype).transpose(1, 2)
    torchs, ours = milliseconds(
        [
            lambda: [attention_probabilities(query, k, None, 0.125) @ v for k, v in cache],
            lambda: [kernels.attend(query, k, v, None, 0.125) for k, v in cache],
        ]
    )
    return f"{torchs:.1f} | {ours:.1f} | {sum(k.nbytes + v.nbytes for k, v in cache) / 1e6:.0f} MB"


def products(kernels: CpuKernels, weights: list[Tensor], prepacked: list[Tensor], rows: int) -> str:
    """Return the milliseconds of torch, of oneDNN's prepacked weights and of the kernel for all matrices."""
    given = [torch.randn(rows, weight.shape[1]) for weight in weights]
    onednn = [prepack(weight, rows) for weight in weights]
    taken = milliseconds(
        [
            lambda: [F.linear(x, weight) for x, weight in zip(given, weights, strict=True)],
            lambda: [prepacked_linear(x, layout, None) for x, layout in zip(given, onednn, strict=True)],
            lambda: [
                kernels.product(x, layout, None, columns)
                for x, layout, (columns, _) in zip(given, prepacked, MATRICES, strict=True)
            ],
        ]
    )
    return " | ".join(f"{one:.1f}" for one in taken)


def elementwise(kernels: CpuKernels, dtype: torch.dtype, rows: int) -> list[str]:
    """Return the milliseconds of torch and of the kernel for GELU in all layers, and for log-softmax of the logits."""
    inner = [torch.randn(rows, 1, 3072).to(dtype) for _ in range(LAYERS)]
    logits = torch.randn(rows, 50257).to(dtype)
    pairs = [
        (lambda: [F.gelu(x, approximate="tanh") for x in inner], lambda: [kernels.gelu(x) for x in inner]),
        (lambda: torch.log_softmax(logits, dim=-1, dtype=torch.float32), lambda: kernels.log_softmax(logits)),
    ]
    return [" | ".join(f"{one:.2f}" for one in milliseconds(list(pair))) for pair in pairs]


@torch.no_grad()
def main() -> None:
    """Print the tables, and the time of reading the matrices."""
    cpu.keep_freed_memory()  # as in an evaluation
    cpu.build()
    kernels = cpu_kernels()
    if kernels is None:
        raise SystemExit("The kernels cannot be built: they need AVX-512 and g++.")
    print("| | torch | kernel | bytes read |\n|---|---|---|---|")
    for dtype, sources in ((torch.bfloat16, 16), (torch.float32, 4)):
        for name, rows, queries, keys in ATTENTION:
            taken = attention(kernels, dtype, rows * sources, queries, keys)
            print(f"| {name}-attention, {str(dtype)[6:]}, {sources} sources | {taken} |")
    weights = [torch.randn(shape) for shape in MATRICES]
    prepacked = [kernels.prepack(weight) for weight in weights]
    print("\n| rows of float32 | torch | oneDNN, prepacked | kernel |\n|---|---|---|---|")
    for rows in (4, 16, 32, 64):
        print(f"| {rows} | {products(kernels, weights, prepacked, rows)} |")
    print("\n| | torch | kernel |\n|---|---|---|")
    for dtype, rows in ((torch.bfloat16, 64), (torch.float32, 16)):
        for name, taken in zip(("GELU by tanh", "log_softmax"), elementwise(kernels, dtype, rows), strict=True):
            print(f"| {name}, {str(dtype)[6:]}, {rows} rows | {taken} |")
    (reading,) = milliseconds([lambda: [weight.sum() for weight in weights]])
    print(f"\nreading all matrices once: {reading:.1f} ms, {sum(w.nbytes for w in weights) / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
