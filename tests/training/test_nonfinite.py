"""Non-finite steps change nothing and are recorded with their examples; too many of them end the fit."""

import json
import logging

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from tiny_training import Letters, Recorder, Rows, assert_same, fit, tiny_model, weights_of

from warmstart.config.training import OptimSettings
from warmstart.errors import UserError
from warmstart.runs.run_dir import RunDir
from warmstart.training.nonfinite import LossMonitor

RATES = OptimSettings(encoder_rate=1e-3, decoder_rate=1e-3, new_rate=1e-3, warmup_steps=0)


class Poison(Callback):
    """Makes the gradient of some batches infinite."""

    def __init__(self, *batches):
        self.batches, self.before = batches, {}

    def on_after_backward(self, trainer, pl_module):
        self.before[trainer.global_step] = weights_of(pl_module)
        if trainer.global_step in self.batches:
            next(p for p in pl_module.parameters() if p.grad is not None).grad.fill_(torch.inf)


def module(limit, log_every=1):
    options = {"total_steps": 4, "hparams": {}, "skip_limit": limit, "log_every": log_every}
    return Recorder(tiny_model(), Letters(), RATES, {}, **options)


@pytest.mark.parametrize("fused", [True, False])  # False: a device without that kernel, such as Apple's
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_skipped_step_changes_neither_weights_nor_optimizer_state(precision, fused, tmp_path, monkeypatch):
    if not fused:
        monkeypatch.setattr("warmstart.training.optimizer.FUSED_DEVICES", ())
    poison, log = Poison(1), Rows()
    model, trainer = fit(tmp_path, 2, 1, module=module(1), callbacks=[poison], loggers=[log], precision=precision)
    assert trainer.global_step == 4
    assert trainer.optimizers[0].defaults["fused"] == fused
    assert_same(poison.before[2], poison.before[1], atol=0, rtol=0)
    assert any(not torch.equal(poison.before[3][name], value) for name, value in poison.before[2].items())
    assert all(torch.isfinite(p).all() for p in weights_of(model).values())
    assert {float(state["step"]) for state in trainer.optimizers[0].state.values()} == {3.0}
    assert log.of("train/skipped_steps")[-1] == 1.0
    (note,) = map(json.loads, (RunDir(tmp_path).skipped_steps).read_text().splitlines())
    assert note == {"step": 1, "epoch": 0, "examples": [2, 3]}


def test_too_many_skipped_steps_end_the_fit_with_a_checkpoint_for_a_replay(tmp_path):
    with pytest.raises(UserError, match=r"2 steps were skipped.*task=replay"):
        fit(tmp_path, 2, 1, module=module(1), callbacks=[Poison(0, 1)], precision="32-true")
    kept = torch.load(tmp_path / "checkpoints" / "nonfinite.ckpt", weights_only=True)
    assert kept["warmstart"]["skipped_steps"] == 2
    assert all(torch.isfinite(value).all() for value in kept["state_dict"].values())


def test_the_error_for_a_later_checkpoint_format_names_the_version():
    with pytest.raises(UserError, match=r"warmstart 9\.0 wrote this"):
        module(1).on_load_checkpoint({"warmstart": {"version": "9.0", "format": 99}})
    module(1).on_load_checkpoint({})  # of a version before formats


def test_a_spike_of_the_loss_is_logged(caplog):
    watch = LossMonitor(1)
    with caplog.at_level(logging.WARNING):
        for i in range(20):
            watch.warn_about_spike(torch.tensor(3.0 + 0.01 * (i % 3)))
        assert "jumped" not in caplog.text
        watch.warn_about_spike(torch.tensor(3.5))
    assert "The loss jumped to 3.500; its last 20 readings average 3.009" in caplog.text


def test_steps_skipped_since_the_last_reading_are_in_the_checkpoint(tmp_path):
    fit(tmp_path, 2, 1, module=module(5, log_every=100), callbacks=[Poison(1, 3)], precision="32-true")
    held = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert held["warmstart"]["skipped_steps"] == 2
    assert len((RunDir(tmp_path).skipped_steps).read_text().splitlines()) == 2
