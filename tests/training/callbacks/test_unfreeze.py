"""New parts train alone for the first steps, then everything, under DDP too; test_checkpoints.py resumes across it."""

import torch
from tiny_training import Letters, Recorder, Rows, assert_same, fit, tiny_model, weights_of

from warmstart.config.training import OptimSettings
from warmstart.training.optimizer import build_optimizer
from warmstart.training.schedule import build_schedule

RATES = OptimSettings(encoder_rate=0.01, decoder_rate=0.01, new_rate=0.01, warmup_steps=2, weight_decay=0.1)
STEPS = 4


class Steps(Recorder):
    """Keeps the weights after each optimizer step, and what the backward pass gave."""

    def configure_gradient_clipping(self, *args, **kwargs):
        self.with_gradient = {name for name, p in self.model.named_parameters() if p.grad is not None}
        self.counts = [*getattr(self, "counts", []), len(self.with_gradient)]
        super(Recorder, self).configure_gradient_clipping(*args, **kwargs)

    def on_train_batch_end(self, *args):
        self.weights = [*getattr(self, "weights", []), weights_of(self)]


def trained(folder, unfreeze_after=2, steps=STEPS, **settings):
    module = Steps(
        tiny_model().double(), Letters(), RATES, {}, total_steps=STEPS, hparams={}, unfreeze_after=unfreeze_after
    )
    fit(folder, 2, 1, module=module, max_steps=steps, **settings)
    return module


def changed(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_encoder_and_decoder_are_frozen_until_they_unfreeze(tmp_path):
    module = trained(tmp_path)
    new = module.model.new_parameter_names()
    start = weights_of(type("At start", (), {"model": tiny_model().double()}))
    assert changed(start, module.weights[1]) == new
    assert new < changed(module.weights[1], module.weights[2])
    assert module.counts == [len(new)] * 2 + [len(start)] * 2
    # No moments either: the first step after thawing is Adam's first.
    counts = {float(state["step"]) for state in module.trainer.optimizers[0].state.values()}
    assert counts == {4.0, 2.0}
    assert all(p.requires_grad for p in module.model.parameters())


def test_a_fit_that_ends_before_the_unfreezing_leaves_nothing_frozen(tmp_path):
    assert all(p.requires_grad for p in trained(tmp_path, unfreeze_after=3, steps=1).model.parameters())


def test_dropping_gradients_under_ddp_is_the_same_training(tmp_path):
    alone, ddp = trained(tmp_path / "alone"), trained(tmp_path / "ddp", strategy="ddp")
    assert ddp.counts == alone.counts
    assert_same(weights_of(ddp), weights_of(alone))


def test_unfrozen_parameters_warm_up_from_zero_below_the_common_schedule():
    optimizer = build_optimizer(tiny_model(), OptimSettings(encoder_rate=1.0, decoder_rate=1.0, new_rate=1.0))
    schedule = build_schedule(optimizer, OptimSettings(warmup_steps=2), 6, unfreeze_after=2)
    rates = {"encoder": [], "new": []}
    for _ in range(6):
        for group in optimizer.param_groups:
            if group["name"] in rates:
                rates[group["name"]].append(group["lr"])
        optimizer.step()
        schedule.step()
    assert rates == {"encoder": [0, 0, 0.5, 0.75, 0.5, 0.25], "new": [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]}


def test_the_logged_learning_rates_follow(tmp_path):
    log = Rows()
    trained(tmp_path, loggers=[log])
    assert [rate == 0 for rate in log.of("rate/encoder")] == [True, True, False, False]
