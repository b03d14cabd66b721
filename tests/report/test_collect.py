"""Runs are found wherever they lie, in whatever state they were left."""

import json

import pytest
from omegaconf import OmegaConf

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
    assert runs["a"].finished == (runs["a"].folder / "result.json").stat().st_mtime


def test_the_checkpoint_that_was_judged_is_known_or_the_best(write_run, tmp_path):
    write_run("a", result={"checkpoint": {"name": "last.ckpt", "sha256": "0f"}})
    write_run("b")
    of = {run.folder.name: (run.checkpoint, run.checkpoint_sha256) for run in collect([tmp_path])}
    assert of == {"a": ("last.ckpt", "0f"), "b": ("best.ckpt", None)}


def test_a_run_counts_once_and_what_is_not_there_is_said(write_run, tmp_path):
    folder = write_run("a")
    assert len(collect([folder, tmp_path, tmp_path / "sweep"])) == 1
    with pytest.raises(UserError, match="no such folder"):
        collect([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no run lies there"):
        collect([tmp_path / "empty"])


def test_a_run_is_known_by_its_result_whatever_a_later_task_left_in_its_folder(write_run, tmp_path):
    folder = write_run("a")
    result = json.loads((folder / "result.json").read_text())
    config = {"task": "evaluate", "seed": 7, "encoder": {"name": "electra"}, "data": {"cache_dir": "here"}}
    (folder / "result.json").write_text(json.dumps(result | {"config": config}))
    OmegaConf.save(OmegaConf.create({"task": "summarize"}), folder / ".hydra" / "config.yaml")
    (run,) = collect([tmp_path])
    assert (run.status, run.seed) == ("complete", "7")
    assert run.choices == {"encoder.name": "electra"}  # where tokens are cached is no choice


def test_a_damaged_line_of_predictions_is_named(write_run, tmp_path):
    path = write_run("a") / "predictions.jsonl"
    path.write_text(path.read_text() + '{"id": "2", "docu')
    with pytest.raises(UserError, match=r"predictions\.jsonl, line 3 is damaged"):
        collect([tmp_path])
