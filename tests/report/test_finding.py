"""The finding names the best row, its differences, and whether they are more than chance."""

import json

import numpy as np
import pytest

from warmstart.report.collect import collect
from warmstart.report.compare import baseline_row, ranked_by, rows_of
from warmstart.report.differences import differences
from warmstart.report.finding import finding


@pytest.fixture
def found(tmp_path):
    def of(kind="rouge1", baselines=("lead1",)):
        rows = rows_of(collect([tmp_path]))
        others = [baseline_row(rows[0], name, f"{name} (baseline)", 0) for name in baselines] if rows else []
        compared = [*rows, *others]
        sentences = finding(rows, compared, differences(compared), ranked_by(rows), kind)
        return " ".join(sentences).replace("\N{NO-BREAK SPACE}", " ")

    return of


def scores(step, seed, spread=1.0):
    return tuple(float(x) for x in 50 + step + np.random.default_rng(seed).normal(0, spread, 40))


def best(score):
    return {"validation": {"monitor": "validation/rouge1", "mode": "max", "best": score}}


def test_it_begins_with_the_best_row_and_what_it_is_better_than(write_run, found):
    write_run("a", scores=scores(10, 0), result=best(3.0))
    write_run("b", encoder="roberta", scores=scores(5, 1), result=best(2.0))
    write_run("c", encoder="electra", scores=scores(0, 2), result=best(1.0))
    text = found()
    assert text.startswith("encoder=bert is the best of 3 rows by validation/rouge1, with ROUGE-1 59.")
    assert "worse than its strongest baseline, lead1 (p < 0.001), and " in text
    assert "better than the next row, encoder=roberta (p < 0.001)." in text
    assert text.endswith("p is corrected by Holm's method for 6 pairs of 4 rows, baselines included.")
    assert "distinguishable" not in text


def test_it_says_if_no_row_is_distinguishable(write_run, found):
    for number, encoder in enumerate(("a", "b", "c")):
        write_run(encoder, encoder=encoder, scores=scores(0, number), result=best(float(number)))
    text = found()
    assert text.startswith("No two rows are distinguishable in ROUGE-1. encoder=c is the best of 3 rows")
    assert "not distinguishable from the next row, encoder=b (0." in text


def test_rows_further_down_that_may_be_as_good_are_counted(write_run, found):
    write_run("a", encoder="a", scores=scores(5, 0), result=best(3.0))
    write_run("b", encoder="b", scores=scores(0, 1), result=best(2.0))
    write_run("c", encoder="c", scores=scores(5, 2), result=best(1.0))
    assert "It is not distinguishable from one row, encoder=c further down." in found()


def test_too_few_examples_are_not_tested(write_run, found):
    write_run("a", scores=(30.0, 40.0), result=best(2.0))
    write_run("b", encoder="roberta", scores=(10.0, 20.0), result=best(1.0))
    text = found()
    assert "20.00 better than the next row, encoder=roberta (too few examples for a test)" in text
    assert "Holm" not in text


def test_a_single_row_is_compared_with_its_baseline_only(write_run, found):
    write_run("a", seed=1, scores=scores(0, 0))
    write_run("b", seed=2, scores=scores(0, 1))
    text = found()
    assert text.startswith("bert x gpt2 has ROUGE-1 ")
    assert "on the test split (mean of 2 seeds). In ROUGE-1 it is " in text
    assert "next row" not in text
    assert "for one pair of 2 rows" in text


def test_an_upper_bound_is_no_baseline_to_beat_and_no_test_is_spent_on_it(write_run, found, tmp_path):
    for seed, name in enumerate(("a", "b")):
        path = write_run(name, encoder=name, scores=scores(0, seed), result=best(2.0 - seed)) / "predictions.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        rows = [row | {"lead1/rouge1": 40.0 + i % 3, "oracle/rouge1": 70.0 + i % 3} for i, row in enumerate(rows)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = found(baselines=("lead1", "oracle"))
    assert "better than its strongest baseline, lead1 (p < 0.001)" in text
    assert "oracle" not in text
    assert text == found()  # with its pairs, Holm's method would count 6 pairs of 4 rows
    assert "for 3 pairs of 3 rows, baselines included." in text
    assert "baseline," not in found(baselines=("oracle",))
    row = rows_of(collect([tmp_path]))[0]
    (pair,) = differences([row, baseline_row(row, "oracle", "oracle", 0)])
    assert pair.scores["rouge1"][0] < -10
    assert pair.p == {}


def test_a_row_without_a_test_score_is_not_given_one(write_run, found):
    untested = {"metrics": {}, "baselines": {}, "controls": {}}
    write_run("a", result=best(2.0) | untested)
    folder = write_run("b", encoder="roberta", result=best(1.0) | untested)
    (folder / "predictions.jsonl").unlink()
    text = found()
    assert "by validation/rouge1, with no score." in text
    assert text.endswith("The next row, encoder=roberta, has no ROUGE-1 of the same examples.")


def test_a_row_that_cannot_be_ranked_is_no_rival(write_run, found):
    write_run("a", scores=scores(0, 0), result=best(2.0))
    folder = write_run("b", encoder="roberta", result={"metrics": {}, "baselines": {}, "controls": {}})
    (folder / "predictions.jsonl").unlink()
    text = found()
    assert text.startswith("encoder=bert is the only one of 2 rows with validation/rouge1; it has ROUGE-1 ")
    assert "The next row, encoder=roberta, has no ROUGE-1 of the same examples." in text


def test_without_a_complete_run_there_is_no_finding(write_run, found):
    write_run("a", status="failed")
    assert found() == ""
