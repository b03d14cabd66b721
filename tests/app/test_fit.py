"""What a fit begins from, and what it leaves of earlier fits in its folder."""

import csv
import json

import pytest
import torch

from warmstart.app import fit, resuming
from warmstart.app.identity import config_hash
from warmstart.errors import UserError
from warmstart.evaluation.result import read_result


def steps_of(run_dir, name):
    return torch.load(run_dir / "checkpoints" / name, weights_only=True)["global_step"]


def test_a_fit_from_another_runs_checkpoint_reports_nothing_of_the_run_before_it(settings_of, tmp_path):
    before, other = tmp_path / "before", tmp_path / "other"
    fit.run(settings_of("debug=tiny", "trainer.max_steps=9", "trainer.max_epochs=9", "optim.new_rate=5e-3"), before)
    fit.run(settings_of("debug=tiny", "trainer.max_steps=2", "seed=2"), other)
    first = read_result(before)
    (before / "nonfinite.jsonl").write_text("")
    last = other / "checkpoints" / "last.ckpt"
    fit.run(settings_of("debug=tiny", "trainer.max_steps=3", "seed=2", f"ckpt={last}"), before)
    assert (steps_of(before, "last.ckpt"), steps_of(before, "best.ckpt")) == (3, 3)
    result = read_result(before)
    assert (result["steps"], result["resumed"]) == (3, True)
    assert result["validation"]["best"] > first["validation"]["best"]
    assert not (before / "checkpoints" / "last-1.ckpt").exists()
    assert not (before / "nonfinite.jsonl").exists()
    assert steps_of(other, "last.ckpt") == 2  # what it began from stays


def test_a_run_directory_is_resumed_from_its_newest_sound_checkpoint(settings_of, tmp_path):
    run, on = tmp_path / "run", tmp_path / "on"
    fit.run(settings_of("debug=tiny", "trainer.max_steps=2"), run)
    more = ("debug=tiny", "trainer.max_steps=4", "trainer.max_epochs=9")
    fit.run(settings_of(*more, f"ckpt={run}"), on)
    assert (read_result(on)["steps"], read_result(on)["resumed"]) == (4, True)
    fit.run(settings_of(*more, f"ckpt={run}"), run)  # in place, too
    assert (read_result(run)["steps"], read_result(run)["resumed"]) == (4, True)


def test_the_same_command_goes_on_with_what_it_began_from_another_run(settings_of, tmp_path, monkeypatch, caplog):
    other, run = tmp_path / "other", tmp_path / "run"
    fit.run(settings_of("debug=tiny", "trainer.max_steps=2"), other)
    command = settings_of("debug=tiny", "trainer.max_steps=4", "trainer.max_epochs=9", f"ckpt={other}")

    def preempted(*_):
        raise RuntimeError("preempted")

    with monkeypatch.context() as patched:
        patched.setattr("warmstart.app.evaluate.test", preempted)
        with pytest.raises(RuntimeError, match="preempted"):
            fit.run(command, run)
    assert steps_of(run, "last.ckpt") == 4
    with pytest.raises(UserError, match="of another config, or from another checkpoint"):
        fit.run(settings_of("debug=tiny", "trainer.max_steps=4", "trainer.max_epochs=9"), run)
    with caplog.at_level("INFO"):
        fit.run(command, run)
    assert f"Going on from {run}" in caplog.text
    assert read_result(run)["status"] == "complete"


def test_a_checkpoint_after_which_nothing_is_left_to_train_is_refused(settings_of, tmp_path):
    other = tmp_path / "other"
    fit.run(settings_of("debug=tiny", "trainer.max_steps=2"), other)
    with pytest.raises(UserError, match=r"has taken 2 steps .* nothing would be trained"):
        fit.run(settings_of("debug=tiny", "trainer.max_steps=2", "seed=5", f"ckpt={other}"), tmp_path / "run")


@pytest.mark.parametrize(
    ("ckpt", "said"),
    [
        (
            "empty",
            "ckpt={0} was asked for, but {0} holds no checkpoints/last.ckpt. Name a run directory or a .ckpt file",
        ),
        ("absent", "ckpt={0} was asked for, but {0} is not there. Name a run directory or a .ckpt file"),
        ("last", "ckpt=last was asked for, but .*run is not there. Set name= to the run to resume"),
    ],
)
def test_a_checkpoint_that_is_not_there_is_said_with_what_to_name(ckpt, said, settings_of, tmp_path):
    (tmp_path / "empty").mkdir()
    asked = ckpt if ckpt == "last" else tmp_path / ckpt
    with pytest.raises(UserError, match=said.format(asked)):
        fit.run(settings_of("debug=tiny", f"ckpt={asked}"), tmp_path / "run")
    assert read_result(tmp_path / "run")["status"] == "failed"


@pytest.mark.parametrize("word", ["optim.encoder_rate=-1", "ckpt=absent.ckpt", "+trainer.extra.no_such=1"])
def test_a_mistyped_word_leaves_the_result_of_a_complete_run(word, settings_of, tmp_path):
    complete = {"status": "complete", "metrics": {"test/nll": 1.0}}
    (tmp_path / "result.json").write_text(json.dumps(complete))
    with pytest.raises(UserError):
        fit.run(settings_of("debug=tiny", word), tmp_path)
    assert read_result(tmp_path) == complete
    assert not (tmp_path / "result.previous.json").exists()


def test_a_mistyped_word_is_said_instead_of_an_earlier_failure(settings_of, tmp_path):
    (tmp_path / "result.json").write_text(json.dumps({"status": "failed", "error": "earlier"}))
    with pytest.raises(UserError):
        fit.run(settings_of("debug=tiny", "optim.encoder_rate=-1"), tmp_path)
    assert "optim.encoder_rate=-1" in read_result(tmp_path)["error"]


def test_fewer_validation_examples_than_devices_are_said_with_both_figures(run_py, tmp_path):
    words = ("debug=tiny", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.strategy=ddp")
    outcome = run_py(*words, "data.limit_validation=1", cwd=tmp_path)
    assert outcome.returncode == 2
    assert (
        "2 devices were asked for (trainer.devices times trainer.nodes), but the validation split has 1"
        in outcome.stderr
    )
    assert "Traceback" not in outcome.stderr


@pytest.mark.parametrize(("begun", "goes_on"), [(128, 512), (512, 128)])
def test_the_schedule_of_a_fit_in_other_batches_ends_with_it(begun, goes_on, settings_of, tmp_path):
    words = ("debug=tiny", "trainer.max_epochs=3", "trainer.log_every=1", "optim.warmup_steps=1", "optim.new_rate=1e-2")
    fit.run(settings_of(*words, f"data.batch.max_tokens={begun}", "trainer.max_steps=14"), tmp_path)
    words += ("trainer.max_steps=-1", "ckpt=last")
    fit.run(settings_of(*words, f"data.batch.max_tokens={goes_on}"), tmp_path)
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rates = [float(row["rate/new"]) for row in csv.DictReader(file) if row["rate/new"]]
    assert len(rates) == read_result(tmp_path)["steps"] > 14
    steps_left = [rate / rates[-1] for rate in rates[14:]]  # linear, to zero at the step after the last
    assert steps_left == pytest.approx(list(range(len(steps_left), 0, -1)), rel=1e-4)
    assert rates[-1] == pytest.approx(1e-2 / (len(rates) - 1), rel=1e-4)


def test_a_complete_run_of_another_config_is_asked_about(settings_of, tmp_path):
    fit.run(settings_of("debug=tiny"), tmp_path)
    before = (tmp_path / "checkpoints" / "best.ckpt").read_bytes()
    with pytest.raises(UserError, match="complete run of another config"):
        fit.run(settings_of("debug=tiny", "seed=2"), tmp_path)
    assert (tmp_path / "checkpoints" / "best.ckpt").read_bytes() == before
    assert read_result(tmp_path)["status"] == "complete"
    fit.run(settings_of("debug=tiny"), tmp_path)  # the same again
    fit.run(settings_of("debug=tiny", "seed=2", "ckpt=new"), tmp_path)
    assert read_result(tmp_path)["seed"] == 2


def test_back_from_the_queue_a_fit_that_began_anew_goes_on(settings_of, tmp_path, monkeypatch):
    settings, folder = settings_of("debug=tiny", "ckpt=new"), tmp_path / "checkpoints"
    fit.run(settings, tmp_path)
    (folder / resuming.UNFINISHED).write_text(f"{read_result(tmp_path)['config_hash']}\n")
    (tmp_path / "result.json").unlink()
    assert resuming.checkpoint_to_resume(settings, tmp_path, config_hash(settings)) is None
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert resuming.checkpoint_to_resume(settings, tmp_path, config_hash(settings)) is not None
    (folder / resuming.UNFINISHED).write_text("another's\n")  # left the queue before it had begun
    assert resuming.checkpoint_to_resume(settings, tmp_path, config_hash(settings)) is None
