"""Runs are found wherever they lie, in whatever state they were left."""

import pytest

from warmstart.errors import UserError
from warmstart.report.collect import collect


def test_complete_failed_partial_and_damaged_runs_are_told_apart(write_run, tmp_path):
    for name, status in (("a", "complete"), ("b", "failed"), ("c", "partial")):
        write_run(name, status=status)
    (write_run("d") / "result.json").write_text('{"status": "compl')
    runs = {run.folder.name: run for run in collect([tmp_path / "sweep"])}
    assert {name: run.status for name, run in runs.items()} == {
        "a": "complete",
        "b": "failed",
        "c": "partial",
        "d": "partial",
    }
    assert runs["b"].error == "UserError: a b"
    assert "goes on with it" in runs["c"].error
    assert runs["a"].choices["encoder.name"] == "bert"
    assert runs["a"].curves == {"train/loss": [(1, 3.0), (3, 2.0), (4, 1.0)], "validation/loss": [(2, 2.5)]}
    assert set(runs["a"].examples) == {"0", "1"}


def test_a_run_counts_once_and_what_is_not_there_is_said(write_run, tmp_path):
    folder = write_run("a")
    assert len(collect([folder, tmp_path, tmp_path / "sweep"])) == 1
    with pytest.raises(UserError, match="no such folder"):
        collect([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no run lies there"):
        collect([tmp_path / "empty"])
