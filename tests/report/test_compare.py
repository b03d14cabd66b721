"""Rows are configurations, and what is said of two of them is the paired bootstrap over their examples."""

import json

import numpy as np
import pytest

from warmstart.report.collect import collect
from warmstart.report.compare import RESAMPLES, SEED, baseline_row, differences, interval, rows_of


def test_seeds_make_one_row_and_one_seed_shows_no_deviation(write_run, tmp_path):
    write_run("a", seed=1, scores=(10.0, 20.0))
    write_run("b", seed=2, scores=(20.0, 40.0))
    write_run("c", seed=1, encoder="roberta", scores=(1.0, 2.0))
    write_run("d", seed=1, weights="random", scores=(0.0, 1.0))
    first, second, third = rows_of(collect([tmp_path]))
    assert first.label == "encoder=bert encoder.weights=pretrained"
    assert [run.seed for run in first.runs] == ["1", "2"]
    path = ("metrics", "test/rouge1")
    assert first.mean(*path) == 22.5
    assert first.deviation(*path) == pytest.approx(np.std([15.0, 30.0], ddof=1))
    assert first.scores("rouge1") == {"0": 15.0, "1": 30.0}
    assert second.label == "encoder=roberta encoder.weights=pretrained"
    assert second.deviation(*path) is None
    assert third.encoder == "bert, untrained"


def test_a_difference_is_the_paired_bootstrap_of_common_examples(write_run, tmp_path):
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0, 50, 40), rng.uniform(0, 50, 30)
    write_run("a", scores=tuple(a))
    write_run("b", encoder="roberta", scores=tuple(b))
    rows = rows_of(collect([tmp_path]))
    (found,) = differences(rows)
    assert found.examples == 30
    sign = 1 if rows[0].runs[0].folder.name == "a" else -1
    difference = sign * (a[:30] - b)
    mean, low, high = found.scores["rouge1"]
    assert mean == pytest.approx(difference.mean())
    # Ids are sorted as text; the same resamples of the same order give the same ends.
    ordered = difference[np.argsort([str(i) for i in range(30)])]
    drawn = np.random.default_rng(SEED).integers(0, 30, (RESAMPLES, 30))
    assert (low, high) == pytest.approx(np.percentile(ordered[drawn].mean(axis=1), (2.5, 97.5)))
    assert interval(rows[0], "rouge1") is not None
    assert interval(rows[0], "nll") is None


def test_examples_of_two_test_sets_are_no_pair_because_their_ids_are_the_same(write_run, tmp_path):
    write_run("a", scores=(1.0, 2.0), text="a b")
    write_run("b", encoder="roberta", scores=(3.0, 4.0), text="c d")
    assert differences(rows_of(collect([tmp_path]))) == []


def test_a_baseline_is_paired_with_a_row_example_by_example(write_run, tmp_path):
    write_run("a", scores=(10.0, 30.0), text="a b", lead=50.0)
    rows = rows_of(collect([tmp_path]))
    rival = baseline_row(rows[0], "lead1", "lead1 (baseline)", 9)
    # The first sentence is "a b one." and the reference "a b": F1 is 2 * 2 / (3 + 2).
    assert rival.scores("rouge1") == pytest.approx({"0": 80.0, "1": 80.0})
    (found,) = differences([*rows, rival])
    assert found.scores["rouge1"][0] == pytest.approx(20.0 - 80.0)
    assert "nll" not in found.scores

    # What the run has scored itself is taken as it is, and only texts that are shown are split again.
    file = rows[0].runs[0].folder / "predictions.jsonl"
    own = [json.loads(line) | {"lead1/rouge1": 81.5 + i} for i, line in enumerate(file.read_text().splitlines())]
    file.write_text("".join(json.dumps(row) + "\n" for row in own))
    rival = baseline_row(rows_of(collect([tmp_path]))[0], "lead1", "lead1 (baseline)", 1)
    assert rival.scores("rouge1") == {"0": 81.5, "1": 82.5}
    assert [row.get("prediction") for row in rival.runs[0].examples.values()] == ["a b one.", None]
