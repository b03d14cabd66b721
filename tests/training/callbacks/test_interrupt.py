"""A fit that is asked to end saves itself between two steps, and goes on to the weights of one that was not asked."""

import os
import signal

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins import MixedPrecision
from tiny_training import Rows, assert_same
from written_training import TOTAL, run, weights

from warmstart.errors import Interrupted
from warmstart.training.callbacks.interrupt import slurm_job


class Asks(Callback):
    """Sends this process a signal at the start of a batch, or in the first batch of a validation."""

    def __init__(self, number, batch=None, in_validation=False):
        self.number, self.batch, self.in_validation, self.batches = number, batch, in_validation, 0

    def on_train_batch_start(self, *args, **kwargs):
        self.batches += 1
        if self.batches == self.batch:
            os.kill(os.getpid(), self.number)

    def on_validation_batch_start(self, *args, **kwargs):
        if self.in_validation:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_fit_interrupted_at_any_batch_ends_with_the_same_weights(accumulate, tmp_path):
    log = Rows()
    whole, trainer = run(tmp_path / "whole", tmp_path, accumulate=accumulate, loggers=[log])
    expected = {(row["step"], row["train/loss"]) for row in log.rows if "train/loss" in row}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)}
    for batch in range(1, min(2 * trainer.num_training_batches, TOTAL * accumulate - 1)):
        number = list(handlers)[batch % 3]
        folder, log = tmp_path / f"left{batch}", Rows()
        with pytest.raises(Interrupted) as left:
            run(folder, tmp_path, accumulate=accumulate, callbacks=[Asks(number, batch)], loggers=[log])
        assert left.value.status == 128 + number
        last = folder / "checkpoints" / "last.ckpt"
        resumed, trainer = run(folder, tmp_path, ckpt=last, accumulate=accumulate, loggers=[log])
        assert trainer.global_step == TOTAL
        assert {(row["step"], row["train/loss"]) for row in log.rows if "train/loss" in row} == expected
        assert_same(weights(resumed), weights(whole), atol=0, rtol=0)
    assert {number: signal.getsignal(number) for number in handlers} == handlers


def test_sigterm_ends_a_validation_at_once_and_sigusr1_lets_it_finish(tmp_path):
    whole, _ = run(tmp_path / "whole", tmp_path)
    for number, saved in ((signal.SIGTERM, False), (signal.SIGUSR1, True)):
        folder = tmp_path / number.name
        with pytest.raises(Interrupted, match="saved" if saved else "not saved"):
            run(folder, tmp_path, callbacks=[Asks(number, in_validation=True)], save_every=1)
        last = folder / "checkpoints" / "last.ckpt"  # of the validation, or of the step before it
        resumed, _ = run(folder, tmp_path, ckpt=last)
        assert_same(weights(resumed), weights(whole), atol=0, rtol=0)


def test_the_slurm_job_is_a_job_or_a_task_of_an_array():
    assert slurm_job({}) is None
    assert slurm_job({"SLURM_JOB_ID": "7"}) == "7"
    assert slurm_job({"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}) == "7_2"


def test_a_fit_that_cannot_be_requeued_ends_nevertheless(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("PATH", str(tmp_path))  # no scontrol
    with pytest.raises(Interrupted):
        run(tmp_path / "run", tmp_path, callbacks=[Asks(signal.SIGUSR1, 2)])
    assert "scontrol requeue 7" in caplog.text


class Half(Callback):
    """fp16 with a loss scale, and gradients of two steps that overflow; on a CPU Lightning alone would take bf16."""

    def setup(self, trainer, pl_module, stage):
        trainer.strategy._precision_plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))

    def on_after_backward(self, trainer, pl_module):
        if trainer.global_step in (1, 4):
            next(p for p in pl_module.parameters() if p.grad is not None).grad.fill_(torch.inf)


@pytest.mark.parametrize("batch", [2, 4, 6])
def test_the_loss_scale_of_fp16_is_restored(batch, tmp_path):
    whole, trainer = run(tmp_path / "whole", tmp_path, callbacks=[Half()])
    scale = trainer.precision_plugin.scaler.state_dict()
    assert scale["scale"] == 2.0**14  # 2^16, halved twice
    folder = tmp_path / "left"
    with pytest.raises(Interrupted):
        run(folder, tmp_path, callbacks=[Half(), Asks(signal.SIGTERM, batch)])
    last = folder / "checkpoints" / "last.ckpt"
    steps = torch.load(last, weights_only=True)["global_step"]
    saved = torch.load(last, weights_only=True)["MixedPrecision"]["scale"]
    assert saved == 2.0 ** (16 - (steps > 1) - (steps > 4))
    resumed, trainer = run(folder, tmp_path, ckpt=last, callbacks=[Half()])
    assert trainer.precision_plugin.scaler.state_dict() == scale
    assert_same(weights(resumed), weights(whole), atol=0, rtol=0)
