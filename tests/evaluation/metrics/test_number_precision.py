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
        ("Es kostet 1.234,50", "It costs 1,234.50", set()),
        ("It costs 1,234.50", "Es kostet 1234,50", set()),
        ("1.250.000 Menschen", "1,250,000 people", set()),
        ("um 3,5 Prozent", "by 3.5 percent", set()),
        ("am 7.11.1867", "on 7 November 1867", {"11"}),
        ("in 2023.", "In 2023, 120 came.", set()),
        ("version 1.2345", "version 1.2346", {"2345"}),
    ],
)
def test_only_numbers_that_the_source_lacks_are_new(summary, document, new):
    assert new_numbers(summary, document) == new


def test_one_value_for_each_example():
    assert np.array_equal(have_new_numbers(["in 1900", "in 1900"], ["1900", "1901"]), [0.0, 1.0])
