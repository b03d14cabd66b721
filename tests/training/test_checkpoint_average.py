"""The average of the best checkpoints: its weights, and that it replaces the best one only if it validates better."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import lightning as L
import pytest
import torch
from tiny_training import assert_same
from written_training import run

from warmstart.config.training import TrainerSettings
from warmstart.errors import Interrupted
from warmstart.runs.run_dir import CheckpointDir
from warmstart.training.callbacks.checkpoints import best_validation, top_steps
from warmstart.training.checkpoint_average import _validate, average_best, mean_weights

BY_SCORE = {"monitor": "validation/score", "monitor_mode": "max"}


def scores(*values):
    left = list(values)
    return lambda samples: {"score": left.pop(0) if len(samples) > 1 else 0.0}


def averaged(folder, cache, *values, ckpt=None, **settings):
    """A fit whose validations get the first scores, and whose average gets the last."""
    chosen = BY_SCORE | {"average_best": 2, "max_steps": 6, "validations_per_epoch": 4} | settings
    module, trainer = run(folder, cache, ckpt=ckpt, score=scores(*values), samples=2, **chosen)
    given = TrainerSettings(**chosen), CheckpointDir(folder / "checkpoints")
    return average_best(*given, trainer, module, trainer.datamodule), module, trainer


def held_in(path):
    return torch.load(path, weights_only=True)


def test_the_mean_is_in_float32_and_keeps_ties_integers_and_equal_values():
    first = torch.full((2, 3), 0.1, dtype=torch.bfloat16)
    third, count = torch.tensor([1 / 3]), torch.tensor([7])
    states = [{"a": first, "tied": first, "b": third, "count": count}]
    states += [{"a": first + i, "tied": first + i, "b": third.clone(), "count": count + i} for i in (1, 2)]
    found = mean_weights(states)
    assert found["a"].data_ptr() == found["tied"].data_ptr()
    assert found["a"].data_ptr() != first.data_ptr()
    expected = sum(state["a"].float() for state in states) / 3
    assert torch.equal(found["a"], expected.to(torch.bfloat16))
    assert torch.equal(found["b"], third)
    assert torch.equal(found["count"], count)


@pytest.mark.parametrize(("of_average", "is_better"), [(9.0, True), (2.5, False)])
def test_the_average_of_the_kept_files_replaces_the_best_if_it_is_better(of_average, is_better, tmp_path, capsys):
    found, module, trainer = averaged(tmp_path, tmp_path / "cache", 1.0, 3.0, 2.0, of_average)
    folder, record = tmp_path / "checkpoints", found["averaged_checkpoints"]
    steps = [*top_steps(trainer)]
    files = [held_in(folder / f"top-{step}.ckpt")["state_dict"] for step in steps]
    expected = {name: (files[0][name] + files[1][name]) / 2 for name in files[0]}
    assert_same(module.state_dict(), expected, atol=1e-7)

    best = held_in(folder / "best.ckpt")
    assert_same(best["state_dict"], expected if is_better else files[0], atol=1e-7 * is_better, rtol=0)
    assert record == {
        "steps": steps,
        "validation": of_average,
        "best": {"step": steps[0], "validation": 3.0},
        "scored_steps": steps if is_better else steps[:1],
    }
    assert best_validation(trainer)["best"] == max(of_average, 3.0)
    assert f"the {'average' if is_better else 'best checkpoint'} is scored" in capsys.readouterr().out
    samples = (tmp_path / "validation_samples.jsonl").read_text().splitlines()
    assert len(samples) == 2 * 3  # none of the average, whose step would be that of the last validation


def test_a_fit_that_resumes_at_its_end_averages_the_same(tmp_path):
    first, module, _ = averaged(tmp_path, tmp_path / "cache", 1.0, 3.0, 2.0, 9.0)
    last = tmp_path / "checkpoints" / "last.ckpt"
    again, resumed, trainer = averaged(tmp_path, tmp_path / "cache", 9.0, ckpt=last)
    assert again == first
    assert_same(resumed.state_dict(), module.state_dict(), atol=0, rtol=0)
    assert best_validation(trainer)["best"] == 9.0
    longer, _, trainer = averaged(tmp_path, tmp_path / "cache", 8.0, 7.0, 8.5, ckpt=last, max_steps=9)
    assert longer["averaged_checkpoints"]["scored_steps"] == first["averaged_checkpoints"]["steps"]
    assert best_validation(trainer)["best"] == 9.0


@pytest.mark.parametrize(("requested", "kept", "message"), [(3, 2, "kept 2."), (2, 1, "kept 1, so nothing is aver")])
def test_fewer_checkpoints_than_requested_are_reported(requested, kept, message, tmp_path, capsys):
    values = [1.0, 2.0][:kept]
    settings = {"average_best": requested, "max_steps": 1 + 2 * (kept - 1)}
    found, _, trainer = averaged(tmp_path, tmp_path / "cache", *values, 9.0, **settings)
    assert len(top_steps(trainer)) == kept
    assert bool(found) == (kept > 1)
    assert f"trainer.average_best={requested} was requested; this fit {message}" in capsys.readouterr().out


class Signal(L.Callback):
    """Sends this process a signal when a validation begins."""

    def __init__(self, sent):
        self.sent = sent

    def on_validation_start(self, trainer, module):
        os.kill(os.getpid(), self.sent)


@pytest.mark.parametrize(("sent", "ends"), [(signal.SIGTERM, Interrupted), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_while_the_average_is_validated_ends_the_task(sent, ends, tmp_path):
    scored = {"max_steps": 4, "validations_per_epoch": 2}
    module, trainer = run(tmp_path, tmp_path / "cache", score=scores(1.0, 2.0), samples=2, **BY_SCORE, **scored)
    trainer.callbacks.append(Signal(sent))
    with pytest.raises(ends):
        _validate(trainer, module, trainer.datamodule, "validation/score")


@pytest.mark.slow
def test_two_ranks_average_the_same(tmp_path):
    script = Path(__file__).with_name("averaging_ranks.py")
    outcome = subprocess.run(
        [sys.executable, script, tmp_path], capture_output=True, text=True, check=False, timeout=240
    )
    assert outcome.returncode == 0, outcome.stderr[-3000:]
    ranks = [held_in(tmp_path / f"rank{rank}.pt") for rank in (0, 1)]
    assert ranks[0]["record"] == ranks[1]["record"]
    for entry in ("weights", "averages"):
        assert_same(ranks[0][entry], ranks[1][entry], atol=0, rtol=0)
    last = held_in(tmp_path / "checkpoints" / "last.ckpt")
    assert_same({name: last["averaged_weights"][name] for name in ranks[0]["averages"]}, ranks[0]["averages"])
    top = [held_in(tmp_path / "checkpoints" / f"top-{step}.ckpt")["state_dict"] for step in ranks[0]["record"]["steps"]]
    assert_same(ranks[0]["weights"], {name: (top[0][name] + top[1][name]) / 2 for name in top[0]}, atol=1e-7)
