"""The compiled kernels of a decoding step against torch's operations, alternately in one process.

    python benchmarks/decoding_kernels.py

Attention as GPT-2's and wider decoders have it at a step, and GPT-2's matrices for some numbers of rows in float32.
Everything 12 layers read is more than a cache holds, so memory is read each time; its reading alone is the limit.
"""

import statistics
import time
from collections.abc import Callable

import torch

from warmstart.model.attention import attention_probabilities
from warmstart.model.cpu_kernels import cpu_kernels

LAYERS, REPEATS = 12, 9
ATTENTION = (("cross", 16, 4, 512), ("self", 64, 1, 32))  # rows, queries, keys at 16 sources and 4 beams
MATRICES = [(2304, 768), (768, 768), (768, 768), (768, 768), (3072, 768), (768, 3072)] * LAYERS + [(50257, 768)]


def milliseconds(works: list[Callable[[], object]]) -> list[float]:
    """The median of each, in turn."""
    seconds: list[list[float]] = [[] for _ in works]
    for _ in range(REPEATS):
        for work, taken in zip(works, seconds, strict=True):
            began = time.perf_counter()
            work()
            taken.append(1e3 * (time.perf_counter() - began))
    return [statistics.median(taken) for taken in seconds]


@torch.no_grad()
def main() -> None:
    """Print milliseconds of torch, oneDNN's layout where there is one, and the kernels."""
    kernels = cpu_kernels()
    assert kernels is not None, "no AVX-512 or no g++ here"
    print("| | torch | kernel | bytes read |\n|---|---|---|---|")
    for dtype, divisor in ((torch.bfloat16, 1), (torch.float32, 4)):
        for name, rows, queries, keys in ATTENTION:
            shape = (rows // divisor, 12, keys, 64)
            cache = [(torch.randn(shape).to(dtype), torch.randn(shape).to(dtype)) for _ in range(LAYERS)]
            query = torch.randn(rows // divisor, queries, 12, 64).to(dtype).transpose(1, 2)
            torchs, ours = milliseconds(
                [
                    lambda: [attention_probabilities(query, k, None, 0.125) @ v for k, v in cache],  # noqa: B023
                    lambda: [kernels.attend(query, k, v, None, 0.125) for k, v in cache],  # noqa: B023
                ]
            )
            read = sum(k.nbytes + v.nbytes for k, v in cache) / 1e6
            what = f"{name}-attention, {str(dtype)[6:]}, {16 // divisor} sources"
            print(f"| {what} | {torchs:.1f} | {ours:.1f} | {read:.0f} MB |")
    weights = [torch.randn(shape) for shape in MATRICES]
    laid_out = [kernels.laid_out(weight) for weight in weights]
    print("\n| rows of float32 | torch | oneDNN's layout | kernel |\n|---|---|---|---|")
    for rows in (4, 16, 32, 64):
        given = {width: torch.randn(rows, width) for width in (768, 3072)}
        theirs = [torch.ops.mkldnn._reorder_linear_weight(weight, rows) for weight in weights]
        product = torch.ops.mkldnn._linear_pointwise
        times = milliseconds(
            [
                lambda: [torch.nn.functional.linear(given[w.shape[1]], w) for w in weights],  # noqa: B023
                lambda: [
                    product(given[s[1]], w, None, "none", [], "")  # noqa: B023
                    for w, s in zip(theirs, MATRICES, strict=True)  # noqa: B023
                ],
                lambda: [
                    kernels.product(given[s[1]], w, None, s[0])  # noqa: B023
                    for w, s in zip(laid_out, MATRICES, strict=True)
                ],
            ]
        )
        print(f"| {rows} | " + " | ".join(f"{taken:.1f}" for taken in times) + " |")
    (reading,) = milliseconds([lambda: [weight.sum() for weight in weights]])
    print(f"\nreading all matrices once: {reading:.1f} ms, {sum(w.nbytes for w in weights) / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
