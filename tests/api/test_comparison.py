"""Two runs are compared on the same test texts with a paired bootstrap."""

import json
import shutil
from pathlib import Path
from statistics import fmean

import pytest

import warmstart
from warmstart.api.comparison import Comparison, ScoreDifference
from warmstart.runs.run_dir import RunDir


@pytest.fixture
def copy_of(run, tmp_path):
    """``copy_of(change)``: a copy of the run whose predictions, by id, were changed in place."""

    def make(change):
        folder = tmp_path / "copy"
        shutil.copytree(run.folder, folder)
        rows = RunDir(folder).read_predictions()
        change(rows)
        RunDir(folder).write_predictions(rows.values())
        return folder

    return make


def test_two_runs(run, other_run):
    found = warmstart.compare(run, other_run.folder)
    assert (found.a, found.b, found.examples) == (run.folder, other_run.folder, len(run.predictions))
    assert found.scores["nll"].mean == pytest.approx(run.scores["nll"] - other_run.scores["nll"], abs=0.01)
    rows = zip(run.predictions, other_run.predictions, strict=True)
    assert found.scores["rougeL"].mean == pytest.approx(fmean(a["rougeL"] - b["rougeL"] for a, b in rows))
    for one in found.scores.values():
        assert one.low <= one.mean <= one.high
    assert "95 % intervals of a paired bootstrap" in str(found)
    assert "rougeLsum" in str(found)


def test_a_constant_difference_has_a_narrow_interval(run, copy_of):
    def better(rows):
        for row in rows.values():
            row["rouge1"] += 5

    one = warmstart.compare(copy_of(better), run).scores["rouge1"]
    assert (one.mean, one.low, one.high) == pytest.approx((5, 5, 5))
    assert one.excludes_zero
    assert not warmstart.compare(run, run).scores["rouge1"].excludes_zero


def changed(rows):
    next(iter(rows.values()))["reference"] = "another"


def shorter(rows):
    rows.pop(next(iter(rows)))


@pytest.mark.parametrize("change", [changed, shorter])
def test_other_test_texts_are_refused(run, copy_of, change):
    with pytest.raises(warmstart.UserError, match=r"different test texts: 1 of \d+ examples differ"):
        warmstart.compare(run, copy_of(change))


def test_runs_without_test_scores_are_refused(run, tmp_path, copy_of):
    with pytest.raises(warmstart.UserError, match=r"has no result\.json"):
        warmstart.compare(run, tmp_path)
    folder = copy_of(lambda rows: rows.clear())
    with pytest.raises(warmstart.UserError, match=r"task=evaluate ckpt="):
        warmstart.compare(folder, run)
    result = json.loads(RunDir(folder).result.read_text()) | {"status": "interrupted"}
    RunDir(folder).write_result(result)
    with pytest.raises(warmstart.UserError, match="not a finished run"):
        warmstart.compare(folder, run)


def test_runs_that_scored_only_the_validation_split_are_compared_on_it(run, copy_of):
    folder = copy_of(lambda rows: None)
    result = RunDir(folder).read_result()
    result["metrics"] = {name.replace("test/", "validation/"): value for name, value in result["metrics"].items()}
    RunDir(folder).write_result(result)
    found = warmstart.compare(folder, folder)
    assert found.split == "validation"
    assert f"{found.examples} validation examples" in str(found)
    assert warmstart.compare(run, run).split == "test"


def test_likelihoods_are_printed_with_three_digits():
    scores = {"rouge1": ScoreDifference(1.0, 0.5, 1.5), "nll": ScoreDifference(0.010, 0.004, 0.016)}
    text = str(Comparison(Path("a"), Path("b"), 300, scores, None))
    assert "rouge1     +1.00 [+0.50, +1.50]" in text
    assert "nll        +0.010 [+0.004, +0.016]" in text
