"""Compare torch's attention with dropout on a CPU with warmstart's: forward and backward of one layer, in turn.

    python benchmarks/attention.py --repeats 5
    python benchmarks/attention.py --repeats 5 --dtype float32

12 heads of size 64, 8 examples, for the lengths of the encoder, of cross-attention and of the decoder. After the
seconds come the errors of outputs and gradients against float64 with the same mask, relative to their norm, and for
comparison those of torch's fused attention without dropout.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from warmstart import cpu
from warmstart.cpu.attention import attention_with_dropout

LENGTHS = {"encoder": (512, 512), "cross": (128, 512), "decoder": (128, 128)}
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def inputs(queries: int, keys: int, rows: int, dtype: torch.dtype) -> list[Tensor]:
    """Return queries, keys and values: (rows, heads, length, head size), with strides as models pass them."""
    torch.manual_seed(0)
    lengths = (queries, keys, keys)
    return [torch.randn(rows, length, 12, 64).to(dtype).transpose(1, 2).requires_grad_() for length in lengths]


def results(attend: Attend, given: list[Tensor]) -> list[Tensor]:
    """Return the output, and the gradients of a weighted sum of it."""
    torch.manual_seed(1)
    output = attend(*given)
    torch.manual_seed(2)
    weight = torch.randn(output.shape).to(output.dtype)
    return [output, *torch.autograd.grad(output, given, weight)]


def error(attend: Attend, given: list[Tensor]) -> float:
    """Return the largest relative error against float64."""
    wide = [x.detach().double().requires_grad_() for x in given]
    pairs = zip(results(attend, given), results(attend, wide), strict=True)
    return max(float((one - other).detach().norm() / other.detach().norm()) for one, other in pairs)


def main() -> None:
    """Print a line for each pair of lengths: medians in seconds, their ratio, and the errors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    cpu.keep_freed_memory()  # as task=fit does
    attends: dict[str, Any] = {
        "torch": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, dropout_p=chosen.dropout),
        "warmstart": lambda q, k, v: attention_with_dropout(q, k, v, None, chosen.dropout),
    }
    print(f"{chosen.rows} examples, {chosen.dtype}, dropout {chosen.dropout:g}, medians of {chosen.repeats}:")
    for name, (queries, keys) in LENGTHS.items():
        given = inputs(queries, keys, chosen.rows, getattr(torch, chosen.dtype))
        seconds: dict[str, list[float]] = {kind: [] for kind in attends}
        for repeat in range(chosen.repeats + 1):
            for kind, attend in attends.items():
                began = time.perf_counter()
                results(attend, given)
                if repeat:
                    seconds[kind].append(time.perf_counter() - began)
        torchs, ours = (statistics.median(values) for values in seconds.values())
        few = inputs(queries, keys, 1, getattr(torch, chosen.dtype))
        errors = [error(attend, few) for attend in (attends["warmstart"], F.scaled_dot_product_attention)]
        times = f"torch {torchs:.3f} s, warmstart {ours:.3f} s, ratio {torchs / ours:.2f}"
        print(f"{name:8} {queries} x {keys}: {times}", end="")
        print(f"; error {errors[0]:.2g}, of fused attention without dropout {errors[1]:.2g}")


if __name__ == "__main__":
    main()
