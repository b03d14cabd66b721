"""95 % confidence intervals of scores over test examples, by percentile bootstrap over examples (Koehn 2004).

Shapes: n examples, k columns (scores or statistics of the same examples), m resamples.
"""

from collections.abc import Callable

import numpy as np

PERCENTILES = (2.5, 97.5)
FEWEST = 10  # examples; with fewer, the interval is far too narrow to support a conclusion
BLOCK = 4_000_000  # drawn indices in memory at a time: 32 MB


def bootstrap_interval(values: np.ndarray, samples: int, seed: int) -> tuple[float, float]:
    """Return the 95 % interval of a mean.

    Args:
        values: Scores of the examples (n,).
        samples: Number of resamples, with replacement.
        seed: Seed of the resamples.

    Returns:
        Lower and upper end; NaN for a single example, which says nothing about the variance.

    Raises:
        ValueError: There are no examples or no resamples.
    """
    ((low, high),) = bootstrap_intervals(np.asarray(values, dtype=np.float64)[:, None], samples, seed)
    return float(low), float(high)


def bootstrap_intervals(values_nk: np.ndarray, samples: int, seed: int) -> np.ndarray:
    """Return the 95 % intervals of k means, from the same resamples for every column.

    Args:
        values_nk: Scores of the examples (n, k).
        samples: Number of resamples, with replacement.
        seed: Seed of the resamples.

    Returns:
        Lower and upper ends (k, 2); NaN for a single example, or for a column with values that are not finite.

    Raises:
        ValueError: There are no examples or no resamples.
    """
    with np.errstate(invalid="ignore"):  # a column that is not finite has no interval
        intervals_k2 = np.percentile(_resampled_means(values_nk, samples, seed), PERCENTILES, axis=0).T
    return np.full_like(intervals_k2, np.nan) if len(values_nk) == 1 else intervals_k2


def corpus_interval(
    rows_nk: np.ndarray, score: Callable[[np.ndarray], float], samples: int, seed: int
) -> tuple[float, float]:
    """Return the 95 % interval of a score that only sums over examples define, such as BLEU.

    Args:
        rows_nk: Statistics of the examples (n, k).
        score: The score that sums of the statistics (k,) define.
        samples: Number of resamples, with replacement; the same ones as of ``bootstrap_intervals``.
        seed: Seed of the resamples.

    Returns:
        Lower and upper end; NaN for a single example, or if a resample defines no score.

    Raises:
        ValueError: There are no examples or no resamples.
    """
    scores_m = resampled_scores(rows_nk, score, samples, seed)
    if len(rows_nk) == 1:
        return float("nan"), float("nan")
    low, high = np.percentile(scores_m, PERCENTILES)
    return float(low), float(high)


def resampled_scores(rows_nk: np.ndarray, score: Callable[[np.ndarray], float], samples: int, seed: int) -> np.ndarray:
    """Draw a score that only sums over examples define.

    With the same seed, two models are drawn on the same examples, so that their scores can be subtracted.

    Args:
        rows_nk: Statistics of the examples (n, k).
        score: The score that sums of the statistics (k,) define.
        samples: Number of resamples, with replacement.
        seed: Seed of the resamples.

    Returns:
        The score in each resample (m,).

    Raises:
        ValueError: There are no examples or no resamples.
    """
    means_mk = _resampled_means(rows_nk, samples, seed)
    return np.array([score(sums) for sums in means_mk * len(rows_nk)])


def paired_difference(a: np.ndarray, b: np.ndarray, samples: int, seed: int) -> tuple[float, float, float]:
    """Return the mean of a paired difference and its 95 % interval.

    Args:
        a: Scores (n,).
        b: Scores of the same examples in the same order (n,).
        samples: Number of resamples, with replacement.
        seed: Seed of the resamples.

    Returns:
        Mean of ``a - b``, lower end, upper end.

    Raises:
        ValueError: The shapes differ, or there are no examples or no resamples.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"Paired scores need the same examples, got {first.shape} and {second.shape}.")
    difference = first - second
    return (float(difference.mean()), *bootstrap_interval(difference, samples, seed))


def _resampled_means(values_nk: np.ndarray, samples: int, seed: int) -> np.ndarray:
    values_nk = np.asarray(values_nk, dtype=np.float64)
    n = len(values_nk)
    if n == 0 or samples < 1:
        raise ValueError(f"An interval needs examples and resamples, got {n} and {samples}.")
    generator = np.random.default_rng(seed)
    block = max(1, BLOCK // n)
    means = []
    for start in range(0, samples, block):
        m = min(block, samples - start)
        drawn = generator.integers(0, n, (m, n)) + n * np.arange(m)[:, None]
        # How often each example was drawn, then one matrix product for all columns.
        counts_mn = np.bincount(drawn.ravel(), minlength=m * n).reshape(m, n)
        means.append(counts_mn.astype(np.float64) @ values_nk / n)
    return np.concatenate(means)
