"""Scores and averages of the best checkpoints at the end of a fit, and which weights the fit leaves."""

import json

import pytest
import torch

from warmstart.runs.checkpoint_io import AVERAGE
from warmstart.runs.run_dir import RunDir
from warmstart.runs.saved_model import SavedModel
from warmstart.tasks import fit

TINY = ("debug=tiny", "encoder=bert", "decoder=bert", "trainer.max_epochs=4", "trainer.max_steps=4")


def looks_in(run):
    return [json.loads(line) for line in run.looks.read_text().splitlines()]


def test_score_best_scores_each_checkpoint_once(settings_of, tmp_path):
    run = RunDir(tmp_path / "run")
    fit.run(settings_of(*TINY, "trainer.score_best=2"), run.path)
    result, looks = run.read_result(), looks_in(run)
    first, second = result["top_checkpoints"]
    assert sorted(look["checkpoint"]["name"] for look in looks) == ["best.ckpt", f"top-{second['step']}.ckpt"]
    assert result["test_looks"] == 2
    assert first["metrics"]["test/rouge1"] == result["metrics"]["test/rouge1"]
    assert result["top_checkpoints_mean"]["test/nll"] == pytest.approx(
        (first["metrics"]["test/nll"] + second["metrics"]["test/nll"]) / 2
    )
    assert (run.top / "1" / "predictions.jsonl").read_text() == run.predictions.read_text()
    assert json.loads((run.top / "1" / "scores.json").read_text())["metrics"] == result["metrics"]
    assert (run.top / "2" / "scores.json").exists()


def test_averages_are_scored_exported_and_loaded(settings_of, tmp_path):
    run = RunDir(tmp_path / "run")
    words = ("trainer.ema_decay=0.5", "trainer.average_best=2", "optim.new_rate=0.01")
    best_score = fit.run(settings_of(*TINY, *words), run.path)
    result, record = run.read_result(), run.read_result()["averaged_checkpoints"]
    assert [look["checkpoint"] for look in looks_in(run)] == [result["checkpoint"]]  # the test split is read once
    assert best_score == result["validation"]["best"] == min(record["validation"], record["best"]["validation"])

    best = torch.load(run.checkpoints.best, weights_only=True)
    assert best.get("averaged_steps", [best["global_step"]]) == record["scored_steps"]
    last = torch.load(run.checkpoints.last, weights_only=True)
    for path, state in ((run.export, best["state_dict"]), (run.checkpoints.last, last[AVERAGE])):
        for name, weight in SavedModel(str(path)).load().model.named_parameters():
            assert torch.equal(weight, state[f"model.{name}"]), (path, name)
    assert not all(torch.equal(last[AVERAGE][name], weight) for name, weight in last["state_dict"].items())


@pytest.mark.slow
def test_two_ranks_average_and_score_the_best_checkpoints(run_py, tmp_path):
    ranks = ("trainer.accelerator=cpu", "trainer.devices=2", "trainer.strategy=ddp", "trainer.validations_per_epoch=2")
    words = ("trainer.ema_decay=0.5", "trainer.average_best=2", "trainer.score_best=2", "name=two")
    done = run_py(*TINY, *ranks, *words, f"data.cache_dir={tmp_path / 'cache'}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    run = RunDir(tmp_path / "runs" / "two")
    result = run.read_result()
    record = result["averaged_checkpoints"]
    is_average = record["scored_steps"] == record["steps"]
    assert len(result["top_checkpoints"]) == 2
    assert result["test_looks"] == len(looks_in(run)) == 2 + is_average
    assert result["validation"]["best"] == min(record["validation"], record["best"]["validation"])
