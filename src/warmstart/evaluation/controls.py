"""The shuffled-document control: what the model scores when it summarises somebody else's document.

A summary of document j scored against the reference of i needs no second generation: it is the prediction for j.
A model that ignores its source scores the same either way.
"""

from collections.abc import Sequence

import numpy as np

from warmstart.evaluation.rouge import rouge_scores


def derangement(n: int, seed: int, shuffle: int = 0) -> np.ndarray:
    """Draw a permutation of ``n`` in which nothing stays in place (n >= 2): a random cycle (Sattolo's algorithm).

    The derangements of one ``seed`` are numbered by ``shuffle``; no other seed draws them again.
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
    predictions: Sequence[str], references: Sequence[str], *, shuffles: int, seed: int, rows: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """ROUGE by kind of each reference against other documents' summaries, the mean over ``shuffles`` derangements.

    ``rows`` picks the references that are scored; the summaries come from all examples.
    """
    rows = np.arange(len(predictions)) if rows is None else rows
    wanted = [references[int(i)] for i in rows]
    runs = []
    for shuffle in range(shuffles):
        others = derangement(len(predictions), seed, shuffle)[rows]
        runs.append(rouge_scores([predictions[int(i)] for i in others], wanted))
    return {kind: np.mean([run[kind] for run in runs], axis=0) for kind in runs[0]}
