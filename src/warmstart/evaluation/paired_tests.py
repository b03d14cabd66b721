"""Tests of paired differences between trained models, over seeds and test examples together, and their correction.

Another seed and other test examples would both have moved a mean. The bootstrap here draws seeds and examples anew in
each resample, so its interval covers both. With few seeds it is too narrow where seeds differ by much more than
examples do, so a study also uses Student's t-test of the means of the seeds.

Shapes: s seeds, n examples, m resamples.
"""

import math
from functools import lru_cache

import numpy as np

PERCENTILES = (2.5, 97.5)


def resampled_differences(a_SN: np.ndarray, b_SN: np.ndarray, samples: int, seed: int) -> np.ndarray:
    """Draw means of a paired difference, with seeds and examples both drawn with replacement.

    Args:
        a_SN: Scores of one setting (s, n): a row for each seed.
        b_SN: Scores of the other setting (s, n), of the same seeds and examples in the same order.
        samples: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        Mean of ``a - b`` in each resample (m,).

    Raises:
        ValueError: The shapes differ, or there is nothing to resample.
    """
    a_SN, b_SN = np.asarray(a_SN, dtype=np.float64), np.asarray(b_SN, dtype=np.float64)
    if a_SN.shape != b_SN.shape or a_SN.ndim != 2:
        raise ValueError(f"Paired scores need the same seeds and examples, got {a_SN.shape} and {b_SN.shape}.")
    difference_SN = a_SN - b_SN
    s, n = difference_SN.shape
    if s == 0 or n == 0 or samples < 1:
        raise ValueError(f"A bootstrap needs seeds, examples and resamples, got {s}, {n} and {samples}.")
    seeds_MS, examples_MN = _draws(s, n, samples, seed)
    means_M: np.ndarray = np.einsum("ms,sn,mn->m", seeds_MS, difference_SN, examples_MN, optimize=True) / (s * n)
    return means_M


@lru_cache(maxsize=1)  # a study asks for the same draws again and again, and they take most of its time
def _draws(s: int, n: int, samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return how often each resample has each seed (m, s) and each example (m, n)."""
    generator = np.random.default_rng(seed)
    seeds_MS = generator.multinomial(s, np.full(s, 1 / s), samples)
    return seeds_MS, generator.multinomial(n, np.full(n, 1 / n), samples)


def two_sided_p(resampled_M: np.ndarray) -> float:
    """Return the two-sided bootstrap p-value of a difference of zero.

    It is twice the fraction of resamples on the rarer side of zero, with one added to count and number (Davison and
    Hinkley 1997, 4.2), so it is never 0.

    Args:
        resampled_M: Resampled differences (m,).
    """
    m = len(resampled_M)
    rarer = min(int((resampled_M <= 0).sum()), int((resampled_M >= 0).sum()))
    return min(1.0, 2 * (rarer + 1) / (m + 1))


def paired_t_p(differences_N: np.ndarray) -> float:
    """Return the two-sided p-value of Student's paired t-test that a mean difference is zero.

    Args:
        differences_N: Difference of each example, or mean difference of each seed (n,); two or more.
    """
    n = len(differences_N)
    spread = float(np.std(differences_N, ddof=1)) / math.sqrt(n)
    mean = float(np.mean(differences_N))
    if spread == 0:
        return 1.0 if mean == 0 else 0.0
    return _student_p(mean / spread, n - 1)


def equivalence_t_p(differences_N: np.ndarray, margin: float) -> float:
    """Return the p-value of two one-sided paired t-tests that a mean difference is within a margin (Schuirmann 1987).

    Args:
        differences_N: Mean difference of each seed (n,); two or more.
        margin: Largest difference that counts as equal, in the unit of the differences.

    Returns:
        The larger p-value of the two tests.
    """
    n = len(differences_N)
    spread = float(np.std(differences_N, ddof=1)) / math.sqrt(n)
    room = margin - abs(float(np.mean(differences_N)))  # to the nearer end, whose test has the larger p-value
    if spread == 0:
        return 0.0 if room > 0 else 1.0
    half = _student_p(room / spread, n - 1) / 2
    return half if room > 0 else 1 - half


def resampled_t_p(difference: float, resampled_M: np.ndarray, examples: int) -> float:
    """Return the two-sided p-value of a t-test whose standard error is that of a bootstrap over examples.

    It is the paired t-test for a difference that is not a mean over examples, such as one of BLEU. The fraction of
    resamples beyond zero cannot be smaller than one in their number, too coarse for a correction for many pairs.

    Args:
        difference: The difference on all examples.
        resampled_M: The difference in each resample (m,).
        examples: Number of examples; two or more.
    """
    error = float(np.std(resampled_M, ddof=1))
    if error == 0:
        return 1.0 if difference == 0 else 0.0
    return _student_p(difference / error, examples - 1)


def _student_p(t: float, freedom: int) -> float:
    """Return P(|T| > |t|) for whole degrees of freedom (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4)."""
    angle = math.atan(abs(t) / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for k in range(2 + odd, freedom + 1, 2):
        total += term
        term *= cosine**2 * (k - 1) / k
    inside = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return max(0.0, 1 - inside)


def equivalence_p(resampled_M: np.ndarray, margin: float) -> float:
    """Return the p-value of two one-sided tests that a difference is within a margin (Schuirmann 1987).

    Args:
        resampled_M: Resampled differences (m,).
        margin: Largest difference that counts as equal, in the unit of the differences.

    Returns:
        The larger p-value of the two tests; below 0.05, the 90 % interval lies within the margin.
    """
    m = len(resampled_M)
    outside = max(int((resampled_M <= -margin).sum()), int((resampled_M >= margin).sum()))
    return (outside + 1) / (m + 1)


def holm(p_values: list[float]) -> list[float]:
    """Correct p-values for their number (Holm 1979).

    Args:
        p_values: p-values of all contrasts that were planned.

    Returns:
        Corrected p-values in the same order. Below 0.05, at most 5 % of such families contain a false finding.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def mcnemar(a: np.ndarray, b: np.ndarray) -> float:
    """Return the exact two-sided p-value of McNemar's test (1947).

    Args:
        a: Whether each example has a property under one setting (n,).
        b: The same examples under the other setting (n,).

    Raises:
        ValueError: The numbers of examples differ.
    """
    first, second = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    if first.shape != second.shape:
        raise ValueError(f"Paired examples are needed, got {first.shape} and {second.shape}.")
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    n = only_first + only_second
    tail: float = sum(math.comb(n, k) for k in range(min(only_first, only_second) + 1)) / 2**n
    return min(1.0, 2 * tail)
