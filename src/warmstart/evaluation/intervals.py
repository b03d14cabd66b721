"""How sure a mean over test examples is: percentile bootstrap over examples (Koehn 2004), 95 %."""

import numpy as np


def bootstrap_interval(values: np.ndarray, samples: int, seed: int) -> tuple[float, float]:
    """95 % interval of the mean of ``values`` (n,) from ``samples`` resamples with replacement."""
    means = _resampled_means(np.asarray(values, dtype=np.float64), samples, seed)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def paired_difference(a: np.ndarray, b: np.ndarray, samples: int, seed: int) -> tuple[float, float, float]:
    """Mean of a - b and its 95 % interval; both scored on the same examples in the same order."""
    difference = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    return (float(difference.mean()), *bootstrap_interval(difference, samples, seed))


def _resampled_means(values: np.ndarray, samples: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    # Row by row: 1,000 x 11,490 indices at once would be 90 MB.
    return np.array([values[generator.integers(0, len(values), len(values))].mean() for _ in range(samples)])
