"""Errors of a summary that a program can see."""

import pytest

from warmstart.report.collect import collect
from warmstart.report.compare import rows_of
from warmstart.report.errors_of_samples import error_rates, errors_of


@pytest.mark.parametrize(
    ("summary", "rouge1", "errors"),
    [
        ("A bridge of 1932.", 40.0, {}),
        (" \n", 0.0, {"empty": "no text"}),
        ("A bridge of 1931 and 7.", 40.0, {"number": "not in the source: 1931, 7"}),
        ("The old bridge is the old bridge.", 40.0, {"repeats": "repeats “the old bridge”"}),
        ("A bridge, bridge of stone.", 40.0, {"repeats": "repeats “bridge bridge”"}),
        ("A singer.", 0.0, {"zero": "no word of the reference"}),
        ("A singer.", None, {}),
    ],
)
def test_errors_of_one_summary(summary, rouge1, errors):
    assert errors_of(summary, "The bridge opened in 1932.", "en", rouge1) == errors


def test_rates_count_the_summaries_of_all_seeds(write_run, tmp_path):
    write_run("a", seed=1, scores=(0.0, 20.0, 30.0, 40.0), text="made in 9")
    write_run("b", seed=2, scores=(10.0, 20.0, 30.0, 40.0), text="made in 9")
    (row,) = rows_of(collect([tmp_path]))
    row.runs[0].examples["1"]["prediction"] = ""
    row.runs[1].examples["0"]["prediction"] = "made in 10"
    assert error_rates(row) == {"examples": 8, "empty": 12.5, "number": 12.5, "repeats": 0.0, "zero": 12.5}
    row.runs = row.runs[:1]
    row.runs[0].examples = {}
    assert error_rates(row)["empty"] is None
