"""Measure the padding of training batches, for several orders and for several minimal savings of target-length buckets.

    python benchmarks/padding.py

Uses all articles of the real news, and again with each document cut to a random length. A batch's loss is the mean over
its label tokens, so a token in a batch with few of them weighs more: batches of short summaries change what is learned.
Target-length buckets do not.
"""

import numpy as np
from training import BUDGET, news

from warmstart.data.batching import Batches, TokenBudgetBatchSampler, pack, padded_tokens
from warmstart.data.target_buckets import MIN_SAVING, target_buckets


def in_bands(source: list[int], target: list[int], batches: int) -> Batches:
    """Sort by source length, cut into bands of ``batches`` batches, sort each band by target length, alternating."""
    order = sorted(range(len(source)), key=lambda i: (source[i], target[i]))
    rows = batches * round(BUDGET * len(source) / (sum(source) + sum(target)))
    planned: Batches = []
    for band, start in enumerate(range(0, len(order), rows)):
        by_target = sorted(order[start : start + rows], key=lambda i: (target[i], source[i]), reverse=band % 2 == 1)
        planned += pack(by_target, source, target, BUDGET, None)
    return planned


def token_weights(batches: Batches, target: list[int]) -> tuple[float, float]:
    """Return the mean weight of a label token in the shortest and longest quarter of summaries; over all it is 1."""
    weight = np.zeros(len(target))
    for batch in batches:
        weight[batch] = 1 / sum(target[i] for i in batch)
    tokens = np.array(target)
    weight /= np.average(weight, weights=tokens)
    short, long = (tokens <= np.percentile(tokens, 25)), (tokens >= np.percentile(tokens, 75))
    return tuple(float(np.average(weight[part], weights=tokens[part])) for part in (short, long))  # type: ignore[return-value]


def main() -> None:
    """Print a line for each order of batches."""
    for mixed in (False, True):
        split = news(10**9, mixed).tokenized("train")
        source, target = [int(x) for x in split.source_lengths], [int(x) for x in split.target_lengths]
        print(f"{'mixed lengths' if mixed else 'real news'}, {len(source)} articles, {BUDGET} tokens a batch:")
        plans = {"by the document": TokenBudgetBatchSampler(source, target, max_tokens=BUDGET).plan(0)}
        plans |= {f"bands of {count} batches": in_bands(source, target, count) for count in (2, 3, 4, 6, 8)}
        for name, plan in plans.items():
            padding = 1 - (sum(source) + sum(target)) / padded_tokens(plan, source, target, min_saving=1)
            short, long = token_weights(plan, target)
            print(f"{name:20} {len(plan)} batches, {padding:.1%} padding, ", end="")
            print(f"weight of a token {short:.2f} in short and {long:.2f} in long summaries")
        print(f"by the document, in two target-length buckets if they save at least (default {MIN_SAVING:.2%})")
        plan = plans["by the document"]
        for saving in (0, 1 / 64, 1 / 32, 1 / 16):
            padding = 1 - (sum(source) + sum(target)) / padded_tokens(plan, source, target, saving)
            divided = sum(
                len(target_buckets(max(source[i] for i in batch), [target[i] for i in batch], saving)) > 1
                for batch in plan
            )
            print(f"{saving:<20.2%} {divided} of {len(plan)} batches divided, {padding:.1%} padding")


if __name__ == "__main__":
    main()
