"""The shuffled-document control: what the model scores when it summarises somebody else's document.

A summary of document j scored against the reference of i needs no second generation: it is the prediction for j.
A model that ignores its source scores the same either way.
"""

import numpy as np


def derangement(n: int, seed: int) -> np.ndarray:
    """A permutation of ``n`` in which nothing stays in place (n >= 2): a random cycle (Sattolo's algorithm)."""
    if n < 2:
        raise ValueError(f"A control needs at least two examples, got {n}.")
    generator = np.random.default_rng(seed)
    order = np.arange(n)
    for i in range(n - 1, 0, -1):
        j = int(generator.integers(0, i))
        order[[i, j]] = order[[j, i]]
    return order
