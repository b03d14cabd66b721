"""The shuffled-document control: the score of the model if it summarizes another example's document.

This needs no second generation: the summary of document j is scored against the reference of i. A model that ignores
its source scores the same either way.
"""

from collections.abc import Callable, Sequence

import numpy as np

from warmstart.evaluation.columns import Columns, average

Score = Callable[[Sequence[str], Sequence[str], Sequence[str]], Columns]
"""Scores predictions, with their references and documents."""


def derangement(n: int, seed: int, shuffle: int = 0) -> np.ndarray:
    """Draw a permutation without fixed points: a random cycle, by Sattolo's algorithm.

    Args:
        n: Number of elements, at least 2.
        seed: Seed of the draw.
        shuffle: Number of the draw with this seed; every pair of seed and number is independent.

    Returns:
        The permutation (n,).

    Raises:
        ValueError: ``n`` is less than 2.
    """
    if n < 2:
        raise ValueError(f"A control needs at least two examples, got {n}.")
    generator = np.random.default_rng([seed, shuffle])
    order = np.arange(n)
    for i in range(n - 1, 0, -1):
        j = int(generator.integers(0, i))
        order[[i, j]] = order[[j, i]]
    return order


def shuffled_document(
    predictions: Sequence[str],
    references: Sequence[str],
    documents: Sequence[str],
    *,
    score: Score,
    shuffles: int,
    seed: int,
    rows: np.ndarray | None = None,
) -> Columns:
    """Score references against the summaries of other documents.

    Args:
        predictions: Summaries of all examples.
        references: References of all examples.
        documents: Documents of all examples.
        score: Scores summaries, with the references and documents to compare them with.
        shuffles: Number of derangements to average over.
        seed: Seed of the derangements.
        rows: Indices of the references to score; None scores all.

    Returns:
        By name of the score, the mean of each scored reference.
    """
    rows = np.arange(len(predictions)) if rows is None else rows
    wanted, read = ([texts[int(i)] for i in rows] for texts in (references, documents))
    runs = []
    for shuffle in range(shuffles):
        others = derangement(len(predictions), seed, shuffle)[rows]
        runs.append(score([predictions[int(i)] for i in others], wanted, read))
    return {kind: average([run[kind] for run in runs]) for kind in runs[0]}
