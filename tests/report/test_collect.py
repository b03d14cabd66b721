"""Runs are found in any folder and any state."""

import json
import os

import pytest
from omegaconf import OmegaConf

from warmstart.errors import UserError
from warmstart.report.collect import collect
from warmstart.report.compare import rows_of
from warmstart.report.page import render


def test_complete_failed_partial_and_damaged_runs_are_distinguished(write_run, tmp_path):
    for name, status in (("a", "complete"), ("b", "failed"), ("c", "partial")):
        write_run(name, status=status)
    (write_run("d") / "result.json").write_text('{"status": "compl')
    runs = {run.folder.name: run for run in collect([tmp_path / "sweep"])}
    assert {name: run.status for name, run in runs.items()} == {
        "a": "complete",
        "b": "failed",
        "c": "partial",
        "d": "damaged",
    }
    assert "result.json is damaged" in runs["d"].error
    assert runs["b"].error == "UserError: a b"
    assert "the same command resumes it" in runs["c"].error
    assert runs["a"].choices["encoder.name"] == "bert"
    assert runs["a"].curves == {"train/loss": [(1, 3.0), (3, 2.0), (4, 1.0)], "validation/loss": [(2, 2.5)]}
    assert set(runs["a"].examples) == {"0", "1"}
    assert runs["a"].finished == (runs["a"].folder / "result.json").stat().st_mtime


def test_the_evaluated_checkpoint_is_recorded_or_the_best(write_run, tmp_path):
    write_run("a", result={"checkpoint": {"name": "last.ckpt", "sha256": "0f"}})
    write_run("b")
    of = {run.folder.name: (run.checkpoint, run.checkpoint_sha256) for run in collect([tmp_path])}
    assert of == {"a": ("last.ckpt", "0f"), "b": ("best.ckpt", None)}


def test_a_run_counts_once_and_a_missing_folder_is_refused(write_run, tmp_path):
    folder = write_run("a")
    assert len(collect([folder, tmp_path, tmp_path / "sweep"])) == 1
    with pytest.raises(UserError, match="no such folder"):
        collect([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="contains no run"):
        collect([tmp_path / "empty"])


def test_a_run_is_identified_by_its_result_after_a_later_task_in_its_folder(write_run, tmp_path):
    folder = write_run("a")
    result = json.loads((folder / "result.json").read_text())
    config = {"task": "evaluate", "seed": 7, "encoder": {"name": "electra"}, "data": {"cache_dir": "here"}}
    (folder / "result.json").write_text(json.dumps(result | {"config": config}))
    OmegaConf.save(OmegaConf.create({"task": "summarize"}), folder / ".hydra" / "config.yaml")
    (run,) = collect([tmp_path])
    assert (run.status, run.seed) == ("complete", "7")
    assert run.choices == {"encoder.name": "electra"}  # the folder of caches is not a choice


RESULTS = {
    "a list": "[]",
    "not a number": "NaN",
    "a word": '"complete"',
    "scores that are a list": '{"status": "complete", "metrics": []}',
    "a baseline that is a number": '{"status": "complete", "baselines": {"lead1": 3}}',
    "a checkpoint without a name": '{"status": "complete", "checkpoint": {"name": 3}}',
    "a score that is a text": '{"status": "complete", "validation": {"monitor": "validation/loss", "best": "low"}}',
    "a config that is a text": '{"status": "complete", "config": "task: fit"}',
    "deep": "[" * 100_000,
}


@pytest.mark.parametrize("way", [*RESULTS, "not UTF-8", "a pipe"])
def test_a_damaged_result_is_listed_with_its_file_and_the_others_are_compared(write_run, tmp_path, way):
    write_run("a")
    path = write_run("b", seed=2) / "result.json"
    path.unlink()
    if way == "a pipe":
        os.mkfifo(path)
    else:
        path.write_bytes(RESULTS[way].encode() if way in RESULTS else b"\xff\xfe")
    sound, damaged = collect([tmp_path])
    assert (sound.status, damaged.status, damaged.seed) == ("complete", "damaged", "2")
    assert damaged.error.startswith(f"{path} is damaged (")
    page = render([sound, damaged], title="t")
    assert "result.json is damaged" in page


@pytest.mark.parametrize("line", ['{"id": "2", "docu', "[]", "3", '{"document": "a"}', '{"id": 1, "document": 2}'])
def test_a_damaged_line_of_predictions_is_listed(write_run, tmp_path, line):
    path = write_run("a") / "predictions.jsonl"
    path.write_text(path.read_text() + line)
    (run,) = collect([tmp_path])
    assert (run.status, run.examples) == ("damaged", {})
    assert "predictions.jsonl is damaged (line 3: " in run.error


def test_predictions_with_a_repeated_id_are_listed_and_no_example_is_lost(write_run, tmp_path):
    path = write_run("a", scores=(10.0, 20.0, 30.0)) / "predictions.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row, one in zip(rows, (7, "b", "7"), strict=True):  # as an earlier release wrote them
        row["id"] = one
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run,) = collect([tmp_path])
    assert (run.status, run.examples) == ("damaged", {})
    assert "predictions.jsonl is damaged (lines 1 and 3 have the same id '7'. Score the run again" in run.error
    assert "task=evaluate" in run.error


@pytest.mark.parametrize("text", ["a: [", "- a", "a: *b", "a", "task: ${"])
def test_a_damaged_config_is_listed_and_never_interpolated(write_run, tmp_path, text):
    path = write_run("a", status="partial") / ".hydra" / "config.yaml"
    path.write_text(text)
    found = collect([tmp_path]) if text != "task: ${" else []
    assert [(run.status, str(path) in run.error) for run in found] == [("damaged", True)] * len(found)
    if not found:  # the task is unknown
        with pytest.raises(UserError, match="contains no run"):
            collect([tmp_path])


@pytest.mark.parametrize("text", ["", "\0", "x,y\n1,2\n", "step,train/loss\n1,2,3,4\nx,1\n2,nan\n", 'step\n"\n'])
def test_readable_rows_of_curves_are_used(write_run, tmp_path, text):
    (write_run("a") / "metrics.csv").write_text(text)
    (run,) = collect([tmp_path])
    assert run.status == "complete"
    assert run.curves == ({"train/loss": [(1, 2.0)]} if "train" in text else {})


def scored_by(task, sha256, **trainer):
    config = {"task": task, "seed": 1, "encoder": {"name": "bert"}, "decoder": {"name": "gpt2"}, "trainer": trainer}
    return {"config": config, "checkpoint": {"name": "best.ckpt", "sha256": sha256}}


def test_an_evaluation_with_other_training_options_is_in_the_row_of_its_fit(write_run, tmp_path):
    fit = scored_by("fit", "a", accelerator="gpu", devices=8, max_steps=100)
    evaluation = scored_by("evaluate", "a", accelerator="cpu", devices=1, max_steps=100)
    evaluation["config"]["optim"] = {"new_rate": 1.0}
    fit["config"]["ckpt_weights"] = "runs/adapted"
    write_run("fit", finished=1, result=fit)
    write_run("evaluation", finished=2, result=evaluation)
    (row,) = rows_of(collect([tmp_path]))
    assert [run.folder.name for run in (*row.runs, *row.left_out)] == ["evaluation", "fit"]
    # Without its fit, an evaluation has the options of the first one of the same weights.
    write_run("other", seed=2, finished=3, result=scored_by("evaluate", "b", max_steps=7))
    write_run("again", seed=2, finished=4, result=scored_by("evaluate", "b", max_steps=7, devices=2))
    assert len(rows_of(collect([tmp_path]))) == 2
    # Another search changes numbers, and so does another fit.
    other = scored_by("evaluate", "a", devices=1)
    other["config"]["generation"] = {"num_beams": 3}
    write_run("beams", finished=5, result=other)
    write_run("longer", finished=6, result=scored_by("fit", "c", devices=8, accelerator="gpu", max_steps=200))
    assert len(rows_of(collect([tmp_path]))) == 4
