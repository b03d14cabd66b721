"""Bootstrap over seeds and examples, equivalence, Holm and McNemar, against values worked out by hand."""

import numpy as np
import pytest

from warmstart.evaluation.bootstrap import resampled_scores
from warmstart.evaluation.paired_tests import (
    equivalence_p,
    equivalence_t_p,
    holm,
    mcnemar,
    paired_t_p,
    resampled_differences,
    resampled_t_p,
    two_sided_p,
)


def test_a_constant_difference_has_no_spread():
    a = np.arange(12.0).reshape(3, 4)
    assert resampled_differences(a + 2, a, 50, seed=1) == pytest.approx(np.full(50, 2.0))


def test_the_spread_holds_both_that_of_seeds_and_that_of_examples():
    of_seeds = np.repeat(np.array([[-1.0], [0.0], [1.0]]), 40, axis=1)
    of_examples = np.repeat(np.linspace(-1, 1, 40)[None], 3, axis=0)
    nothing = np.zeros((3, 40))
    seeds, examples, both = (
        resampled_differences(a, nothing, 4000, seed=1).std() for a in (of_seeds, of_examples, of_seeds + of_examples)
    )
    assert seeds == pytest.approx(np.sqrt(2 / 3 / 3), rel=0.05)
    assert examples == pytest.approx(np.linspace(-1, 1, 40).std() / np.sqrt(40), rel=0.05)
    assert both == pytest.approx(np.hypot(seeds, examples), rel=0.05)


def test_the_same_examples_are_drawn_for_both_settings():
    # Scores that vary far more over examples than between the settings: unpaired resamples would differ by 100.
    a = np.tile(np.array([0.0, 1000.0, -500.0, 4.0]), (3, 1))
    assert np.abs(resampled_differences(a + 0.5, a, 200, seed=1) - 0.5).max() < 1e-9


@pytest.mark.parametrize("shapes", [((3, 4), (2, 4)), ((3, 0), (3, 0)), ((4,), (4,))])
def test_what_cannot_be_paired_is_refused(shapes):
    with pytest.raises(ValueError, match="got"):
        resampled_differences(*(np.zeros(shape) for shape in shapes), 10, seed=1)


def test_p_values_count_the_resamples_beyond_zero_or_a_margin():
    resampled = np.concatenate([np.full(5, -1.0), np.full(94, 1.0)])
    assert two_sided_p(resampled) == pytest.approx(2 * 6 / 100)
    assert two_sided_p(np.zeros(99)) == 1.0
    assert equivalence_p(resampled, 1.5) == pytest.approx(1 / 100)
    assert equivalence_p(resampled, 0.5) == pytest.approx(95 / 100)


def test_holm_multiplies_by_the_number_of_hypotheses_that_are_left():
    # 0.01 x 3, 0.02 x 2, and 0.03 x 1, which may not be below the one before.
    assert holm([0.02, 0.01, 0.03]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_mcnemar_is_the_binomial_test_of_the_examples_that_differ():
    a = np.array([1] * 9 + [0] * 1 + [1] * 5 + [0] * 5)
    b = np.array([0] * 9 + [1] * 1 + [1] * 5 + [0] * 5)
    assert mcnemar(a, b) == pytest.approx(2 * (1 + 10) / 2**10)
    assert mcnemar(a, a) == 1.0


@pytest.mark.parametrize(
    ("quantile", "freedom"), [(12.706, 1), (4.303, 2), (3.182, 3), (2.776, 4), (2.571, 5), (2.262, 9)]
)
def test_the_t_test_of_seeds_has_the_quantiles_of_the_tables(quantile, freedom):
    s = freedom + 1
    differences = np.linspace(-1, 1, s)
    spread = differences.std(ddof=1) / np.sqrt(s)
    assert paired_t_p(differences + quantile * spread) == pytest.approx(0.05, abs=1e-4)
    assert paired_t_p(np.full(s, 0.3)) == 0.0
    assert paired_t_p(np.zeros(s)) == 1.0


def test_three_seeds_that_differ_widely_do_not_prove_a_difference_of_one_sign():
    # Every resample of seeds is above zero; of three fair coins a quarter of all throws agree.
    seeds = np.array([0.6, 9.73, 7.37])
    a = np.repeat(seeds[:, None], 30, axis=1)
    assert two_sided_p(resampled_differences(a, np.zeros_like(a), 2000, seed=1)) < 0.01
    assert paired_t_p(seeds) == pytest.approx(0.16, abs=0.01)


def test_of_a_mean_the_bootstrap_gives_the_p_value_of_the_paired_t_test():
    difference = np.random.default_rng(0).normal(0.3, 1.0, 60)
    resampled = resampled_scores(difference[:, None], lambda sums: sums[0] / 60, 4000, 1)
    assert resampled_t_p(difference.mean(), resampled, 60) == pytest.approx(paired_t_p(difference), rel=0.15)


def test_without_any_spread_only_a_difference_of_zero_has_no_evidence():
    assert resampled_t_p(0.0, np.zeros(10), 5) == 1.0
    assert resampled_t_p(2.0, np.full(10, 2.0), 5) == 0.0


@pytest.mark.parametrize(("s", "quantile"), [(3, 2.919986), (4, 2.353363), (10, 1.833113)])
def test_equivalence_by_students_t(s, quantile):
    differences = np.linspace(-1.0, 1.0, s)
    spread = differences.std(ddof=1) / np.sqrt(s)
    for sign in (1, -1):
        assert equivalence_t_p(sign * (differences + 0.3), 0.3 + quantile * spread) == pytest.approx(0.05, abs=1e-6)
    assert equivalence_t_p(differences + 0.3, 0.3) == pytest.approx(0.5)
    assert equivalence_t_p(differences + 0.5, 0.3) > 0.5
    assert [equivalence_t_p(np.full(s, 0.25), margin) for margin in (0.2, 0.5)] == [1.0, 0.0]
