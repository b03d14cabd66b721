"""Numbers that the source lacks."""

import numpy as np
import pytest

from warmstart.evaluation.metrics.number_precision import have_new_numbers, new_numbers


@pytest.mark.parametrize(
    ("summary", "document", "new"),
    [
        ("a village of 12,500 people", "It has 12500 people.", set()),
        ("a village of 12500 people", "It has 12,500 people.", set()),
        ("born in 1867", "He was born on 7 November 1867.", set()),
        ("born in 1868", "He was born on 7 November 1867.", {"1868"}),
        ("7 of 10", "She won 710 votes.", {"7", "10"}),
        ("two of them", "No digits.", set()),
        ("1,2 and 3", "1 and 2 and 3", set()),
    ],
)
def test_only_numbers_that_the_source_lacks_are_new(summary, document, new):
    assert new_numbers(summary, document) == new


def test_one_value_for_each_example():
    assert np.array_equal(have_new_numbers(["in 1900", "in 1900"], ["1900", "1901"]), [0.0, 1.0])
