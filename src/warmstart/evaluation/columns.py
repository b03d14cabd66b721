"""The scores of n examples: a value for each, or statistics for each whose sums define the score of all.

A mean of values, such as ROUGE, and a corpus score, such as BLEU, are averaged, compared and resampled alike.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from warmstart.evaluation.bootstrap import bootstrap_intervals, corpus_interval


@dataclass(frozen=True)
class Statistics:
    """Statistics of examples that define a score only together."""

    rows_nk: np.ndarray
    """k statistics of each example (n, k)."""
    score: Callable[[np.ndarray], float]
    """The score that sums of the statistics (k,) define; NaN if they define none."""


Column = np.ndarray | Statistics
Columns = dict[str, Column]
"""By name of the score."""


def ratio(parts: Sequence[float], wholes: Sequence[float], scale: float = 100.0) -> Statistics:
    """Return the score "sum of parts divided by sum of wholes", times ``scale``; NaN if the wholes are 0."""
    return Statistics(np.stack([parts, wholes], axis=1).astype(np.float64), lambda sums: _divided(sums, scale))


def _divided(sums: np.ndarray, scale: float) -> float:
    return float(scale * sums[0] / sums[1]) if sums[1] else float("nan")


def mean(column: Column) -> float:
    """Return the score of all examples."""
    if isinstance(column, Statistics):
        return float(column.score(column.rows_nk.sum(axis=0)))
    return float(column.mean())


def minus(own: Column, rival: Column) -> Column:
    """Return the paired difference of two scores of the same examples."""
    if isinstance(own, Statistics) and isinstance(rival, Statistics):
        k, first, second = own.rows_nk.shape[1], own.score, rival.score
        return Statistics(np.hstack([own.rows_nk, rival.rows_nk]), lambda sums: first(sums[:k]) - second(sums[k:]))
    assert isinstance(own, np.ndarray)
    assert isinstance(rival, np.ndarray)
    difference: np.ndarray = own - rival
    return difference


def rows(column: Column, indices: np.ndarray) -> Column:
    """Return the score of some of the examples."""
    if isinstance(column, Statistics):
        return Statistics(column.rows_nk[indices], column.score)
    picked: np.ndarray = column[indices]
    return picked


def average(columns: Sequence[Column]) -> Column:
    """Return the mean over several scores of the same examples, or over their statistics."""
    first = columns[0]
    if isinstance(first, Statistics):
        return Statistics(np.mean([c.rows_nk for c in columns if isinstance(c, Statistics)], axis=0), first.score)
    return np.asarray(np.mean([column for column in columns if isinstance(column, np.ndarray)], axis=0))


def with_intervals(columns: Columns, samples: int, seed: int, prefix: str = "") -> dict[str, Any]:
    """Return the score of each column as ``NAME`` and its 95 % interval as ``NAME_ci``.

    Args:
        columns: Scores of the same examples.
        samples: Number of bootstrap resamples.
        seed: Seed of the resamples, which are the same for all columns.
        prefix: Put before each name.
    """
    values = {name: column for name, column in columns.items() if isinstance(column, np.ndarray)}
    ends: dict[str, list[float]] = {}
    if values:
        intervals = bootstrap_intervals(np.stack(list(values.values()), axis=1), samples, seed)
        ends = {name: interval.tolist() for name, interval in zip(values, intervals, strict=True)}
    for name, column in columns.items():
        if isinstance(column, Statistics):
            ends[name] = list(corpus_interval(column.rows_nk, column.score, samples, seed))
    means = {f"{prefix}{name}": mean(column) for name, column in columns.items()}
    return means | {f"{prefix}{name}_ci": ends[name] for name in columns}
