"""A fit that goes on with other choices than it began with: the new ones count."""

import dataclasses
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from tiny_training import Letters, Recorder, Rows, fit, tiny_model
from written_training import run

from warmstart.config.training import Decay, OptimSettings

BEGUN = OptimSettings(
    encoder_rate=1e-2, decoder_rate=2e-2, new_rate=3e-2, weight_decay=0.01, warmup_steps=1, decay=Decay.constant
)
OTHER = dataclasses.replace(
    BEGUN, encoder_rate=1e-6, decoder_rate=2e-6, new_rate=3e-6, weight_decay=0.5, betas=[0.5, 0.6], warmup_steps=8
)


def resumed(folder, optim, last, **settings):
    log = Rows()
    module = Recorder(tiny_model(), Letters(), optim, {"max_new_tokens": 4}, total_steps=8, hparams={})
    settings = {"max_epochs": 2, "precision": "32-true"} | settings
    _, trainer = fit(folder, 2, 1, module=module, loggers=[log], ckpt_path=last, **settings)
    assert trainer.global_step == 8
    return log, trainer


@pytest.fixture
def last(tmp_path):
    fit(tmp_path / "begun", 2, 1, optim=BEGUN, precision="32-true")
    return tmp_path / "begun" / "checkpoints" / "last.ckpt"


def test_new_learning_rates_decay_and_betas_apply_from_the_first_step(last, tmp_path):
    log, trainer = resumed(tmp_path / "on", OTHER, last)
    for part, rate in (("encoder", 1e-6), ("decoder", 2e-6), ("new", 3e-6)):
        # The schedule goes on at the fifth step, in the warm-up that is asked for now.
        assert log.of(f"rate/{part}") == pytest.approx([rate * step / 8 for step in (5, 6, 7, 8)])
    groups = trainer.optimizers[0].param_groups
    assert {group["weight_decay"] for group in groups} == {0.5, 0.0}
    assert {tuple(group["betas"]) for group in groups} == {(0.5, 0.6)}
    assert {float(state["step"]) for state in trainer.optimizers[0].state.values()} == {8.0}
    held = torch.load(tmp_path / "on" / "checkpoints" / "last.ckpt", weights_only=True)
    assert held["lr_schedulers"][0]["base_lrs"] == [group["initial_lr"] for group in groups]


@pytest.mark.parametrize(("begun", "goes_on"), [(False, True), (True, False)])
def test_the_optimizer_is_fused_as_this_fit_built_it(begun, goes_on, tmp_path, monkeypatch):
    """Of a 16-mixed fit, whose optimizer is not, REMEDY makes one of 32-true."""
    devices = {True: ("cpu",), False: ()}
    monkeypatch.setattr("warmstart.training.optimizer.FUSED_DEVICES", devices[begun])
    fit(tmp_path / "begun", 2, 1, optim=BEGUN, precision="32-true")
    last = tmp_path / "begun" / "checkpoints" / "last.ckpt"
    assert {g["fused"] for g in torch.load(last, weights_only=True)["optimizer_states"][0]["param_groups"]} == {begun}
    monkeypatch.setattr("warmstart.training.optimizer.FUSED_DEVICES", devices[goes_on])
    _, trainer = resumed(tmp_path / "on", OTHER, last)
    assert {group["fused"] for group in trainer.optimizers[0].param_groups} == {goes_on}


class Seen(Callback):
    """Which examples each epoch trained on, in batches; ``keep`` copies ``last.ckpt`` before each batch."""

    def __init__(self, keep=None):
        self.batches, self.keep, self.validations = {}, keep, 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        last = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
        if self.keep and last.exists():
            shutil.copy(last, self.keep / f"{trainer.current_epoch}-{batch_idx}.ckpt")

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.batches.setdefault(trainer.current_epoch, []).append(batch["index"].tolist())

    def on_validation_end(self, trainer, pl_module):
        self.validations += 1

    def rows(self, epoch):
        return [i for batch in self.batches.get(epoch, []) for i in batch]


TWO_EPOCHS = {"max_steps": -1, "max_epochs": 2, "samples": 0}


def begun(folder, max_tokens=320):
    """Checkpoints of a fit of two epochs, by epoch and batch: in the middle of an epoch and at its end."""
    seen = Seen(folder)
    settings = {"save_every": 1, "max_tokens": max_tokens} | TWO_EPOCHS
    run(folder / "begun", folder / "cache", callbacks=[seen], **settings)
    shutil.copy(folder / "begun" / "checkpoints" / "last.ckpt", folder / "2-0.ckpt")
    return seen.batches[0], lambda epoch, batch: folder / f"{epoch}-{batch}.ckpt"


def go_on(folder, ckpt, **settings):
    seen = Seen()
    _, trainer = run(folder / "on", folder / "cache", ckpt=ckpt, callbacks=[seen], **(TWO_EPOCHS | settings))
    return seen, trainer


@pytest.mark.parametrize("max_tokens", [160, 640, 1280])
def test_an_epoch_with_other_batches_restarts(max_tokens, tmp_path, caplog):
    batches, at = begun(tmp_path)
    seen, trainer = go_on(tmp_path, at(0, 5), max_tokens=max_tokens)
    assert trainer.num_training_batches != len(batches)
    for epoch in (0, 1):
        assert Counter(seen.rows(epoch)) == Counter(range(32))
    assert seen.validations == 2
    assert "epoch 0 starts from its first batch" in caplog.text


@pytest.mark.parametrize("max_tokens", [160, 1280])
def test_an_epoch_that_had_ended_with_other_batches_does_not_restart(max_tokens, tmp_path):
    _, at = begun(tmp_path)
    for epoch in (1, 2):  # a checkpoint of the next epoch's first batch, and one of the validation at the end
        seen, _ = go_on(tmp_path, at(epoch, 0), max_tokens=max_tokens, max_epochs=3)
        assert min(seen.batches) == epoch
        for left in range(epoch, 3):
            assert Counter(seen.rows(left)) == Counter(range(32))
        assert seen.validations == 3 - epoch


@pytest.mark.slow
@pytest.mark.parametrize(("max_tokens", "left"), [(320, 4), (280, 2)])  # another plan of 8 batches; the same plan
def test_a_different_number_of_ranks_trains_on_the_rest_of_the_epoch(max_tokens, left, tmp_path):
    batches, at = begun(tmp_path, max_tokens)
    script = Path(__file__).with_name("more_ranks.py")
    command = [sys.executable, script, tmp_path, at(0, 5), str(max_tokens)]
    outcome = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert outcome.returncode == 0, outcome.stderr[-3000:]
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert [[len(rank[epoch]) for rank in ranks] for epoch in (0, 1)] == [[left, left], [4, 4]]
    trained = [{i for rank in ranks for batch in rank[epoch] for i in batch} for epoch in (0, 1)]
    assert trained[0] | {i for batch in batches[:5] for i in batch} == trained[1] == set(range(32))
