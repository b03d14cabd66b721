"""How sure a mean over test examples is: percentile bootstrap over examples (Koehn 2004), 95 %.

Shapes: n examples, k columns (scores of the same examples), m resamples.
"""

import numpy as np

PERCENTILES = (2.5, 97.5)
FEWEST = 10  # examples; resampled from fewer, an interval is far too narrow to decide anything
BLOCK = 4_000_000  # drawn indices held at a time: 32 MB


def bootstrap_interval(values: np.ndarray, samples: int, seed: int) -> tuple[float, float]:
    """95 % interval of the mean of ``values`` (n,) from ``samples`` resamples with replacement.

    NaN at both ends for a single example: it shows nothing of how far another would lie.
    """
    ((low, high),) = bootstrap_intervals(np.asarray(values, dtype=np.float64)[:, None], samples, seed)
    return float(low), float(high)


def bootstrap_intervals(values_nk: np.ndarray, samples: int, seed: int) -> np.ndarray:
    """The same for k columns at once, (k, 2): every column sees the same resamples, drawn only once."""
    with np.errstate(invalid="ignore"):  # a column that is not finite has no interval either
        intervals_k2 = np.percentile(_resampled_means(values_nk, samples, seed), PERCENTILES, axis=0).T
    return np.full_like(intervals_k2, np.nan) if len(values_nk) == 1 else intervals_k2


def paired_difference(a: np.ndarray, b: np.ndarray, samples: int, seed: int) -> tuple[float, float, float]:
    """Mean of a - b and its 95 % interval; both scored on the same examples in the same order."""
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
