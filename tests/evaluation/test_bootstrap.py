"""Intervals have their nominal coverage, and pairing makes them narrower."""

import numpy as np
import pytest

from warmstart.evaluation import bootstrap as intervals
from warmstart.evaluation.bootstrap import bootstrap_interval, bootstrap_intervals, paired_difference


def test_intervals_have_their_nominal_coverage():
    generator = np.random.default_rng(0)
    hits = 0
    for trial in range(400):
        low, high = bootstrap_interval(generator.normal(5, 2, 100), 300, trial)
        hits += low <= 5 <= high
    assert 0.92 <= hits / 400 <= 0.975


def test_the_width_is_that_of_the_normal_approximation():
    values = np.random.default_rng(1).normal(30, 10, 400)
    low, high = bootstrap_interval(values, 4000, 0)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.05)


def test_a_paired_interval_is_narrower_than_two_intervals():
    generator = np.random.default_rng(0)
    base = generator.normal(30, 10, 300)
    better = base + generator.normal(1, 0.5, 300)
    mean, low, high = paired_difference(better, base, 500, 0)
    assert 0.8 < low < mean < high < 1.2
    assert bootstrap_interval(base, 500, 0)[1] > bootstrap_interval(better, 500, 0)[0]  # they overlap


def test_columns_share_resamples_that_depend_on_the_seed():
    values = np.random.default_rng(2).normal(0, 1, (50, 3))
    together = bootstrap_intervals(values, 200, 7)
    for column in range(3):
        assert bootstrap_interval(values[:, column], 200, 7) == pytest.approx(tuple(together[column]))
    assert bootstrap_interval(values[:, 0], 200, 8) != bootstrap_interval(values[:, 0], 200, 7)


def test_blocks_bound_memory_without_changing_the_estimate(monkeypatch):
    values = np.random.default_rng(3).normal(10, 1, 101)
    whole = bootstrap_interval(values, 500, 0)
    monkeypatch.setattr(intervals, "BLOCK", 1000)
    assert bootstrap_interval(values, 500, 0) == pytest.approx(whole, abs=0.03)


@pytest.mark.filterwarnings("error")
def test_a_column_that_is_not_finite_affects_only_its_own_interval():
    values = np.random.default_rng(4).normal(0, 1, (40, 3))
    values[3, 0], values[5, 2] = np.inf, np.nan
    found = bootstrap_intervals(values, 100, 0)
    assert np.isnan(found[[0, 2]]).all()
    assert bootstrap_interval(values[:, 1], 100, 0) == pytest.approx(tuple(found[1]))


def test_edges():
    assert np.isnan(bootstrap_interval(np.array([3.0]), 10, 0)).all()  # one example has no variance
    assert bootstrap_interval(np.array([3.0, 3.0]), 10, 0) == (3.0, 3.0)
    with pytest.raises(ValueError, match="examples"):
        bootstrap_interval(np.array([]), 10, 0)
    with pytest.raises(ValueError, match="same examples"):
        paired_difference(np.ones(2), np.ones(1), 10, 0)
