"""The moving average of the weights: its values, when it is used, what checkpoints hold of it, and that it resumes."""

import math

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from tiny_training import Letters, Recorder, assert_same, fit, tiny_model, weights_of
from written_training import TOTAL, run, weights

from warmstart.config.model import BridgeSettings, Share, WhichSubmodels
from warmstart.config.training import OptimSettings
from warmstart.runs.checkpoint_io import AVERAGE, AtomicCheckpointIO
from warmstart.runs.run_dir import CheckpointDir
from warmstart.training.callbacks.weight_average import decay_of_update

RATES = OptimSettings(encoder_rate=0.01, decoder_rate=0.01, new_rate=0.01, warmup_steps=2)


class Seen(Callback):
    """Records the weights after each optimizer step."""

    def __init__(self):
        self.weights = []

    def on_train_batch_end(self, trainer, pl_module, *args, **kwargs):
        if pl_module.between_steps:
            self.weights.append(weights_of(pl_module))


class Validated(Recorder):
    """Records the weights with which validations compute losses and generate summaries."""

    def on_validation_epoch_start(self):
        super().on_validation_epoch_start()
        self.validated = [*getattr(self, "validated", []), weights_of(self)]

    def on_validation_epoch_end(self):
        super().on_validation_epoch_end()
        self.validated.append(weights_of(self))


def held_in(folder, name):
    return torch.load(folder / "checkpoints" / name, weights_only=True)


def of_model(state):
    return {name.removeprefix("model."): value for name, value in state.items()}


def hand_rolled(start, steps, decay):
    average = start
    for n, now in enumerate(steps):
        kept = min(decay, (1 + n) / (10 + n))
        average = {name: kept * value + (1 - kept) * now[name] for name, value in average.items()}
    return average


@pytest.mark.parametrize("decay", [0.999, 0.2])
def test_it_is_computed_from_the_weights_after_each_step_and_used_by_validations_and_best(decay, tmp_path):
    model, seen = tiny_model().double(), Seen()
    module = Validated(model, Letters(), RATES, {"max_new_tokens": 2}, total_steps=4, hparams={}, references=["a"] * 2)
    start = weights_of(module)
    fit(tmp_path, 1, 2, module=module, callbacks=[seen], ema_decay=decay, validations_per_epoch=2)
    assert len(seen.weights) == 4
    expected = [hand_rolled(start, seen.weights[:steps], decay) for steps in (2, 4)]
    for found, average in zip(module.validated, [expected[0]] * 2 + [expected[1]] * 2, strict=True):
        assert_same(found, average, atol=1e-12)
    assert_same(weights_of(module), seen.weights[-1], atol=0, rtol=0)  # training goes on from the weights themselves

    best, last = held_in(tmp_path, "best.ckpt"), held_in(tmp_path, "last.ckpt")
    of_best = of_model(best["state_dict"])
    assert_same({name: of_best[name] for name in start}, expected[best["global_step"] // 2 - 1], atol=1e-12)
    assert AVERAGE not in best
    assert_same({name: of_model(last["state_dict"])[name] for name in start}, seen.weights[-1], atol=0, rtol=0)
    assert_same({name: of_model(last[AVERAGE])[name] for name in start}, expected[1], atol=1e-12)


def test_the_warm_up_makes_the_average_of_a_short_fit_forget_its_start():
    assert math.prod(decay_of_update(0.999, number) for number in range(60)) < 1e-6  # 0.999 ** 60 is 0.94
    assert [decay_of_update(0.999, number) for number in (0, 10**6)] == [0.1, 0.999]


def test_a_fit_without_validations_saves_the_average_as_best(tmp_path):
    module, trainer = fit(
        tmp_path, 2, 1, optim=RATES, ema_decay=0.5, extra={"limit_val_batches": 0}, precision="32-true"
    )
    trainer.save_checkpoint(tmp_path / "checkpoints" / "best.ckpt")  # as a fit does that ends before a validation
    best, last = held_in(tmp_path, "best.ckpt"), held_in(tmp_path, "last.ckpt")
    assert_same(best["state_dict"], last[AVERAGE], atol=0, rtol=0)
    name = "decoder.cls.predictions.bias"
    assert not torch.equal(of_model(best["state_dict"])[name], weights_of(module)[name])


@pytest.mark.parametrize("unfreeze_after", [0, 4])
def test_a_resumed_fit_has_the_weights_and_averages_of_an_uninterrupted_one(unfreeze_after, tmp_path):
    chosen = {"ema_decay": 0.8, "unfreeze_after": unfreeze_after, "samples": 0}
    whole, trainer = run(tmp_path / "whole", tmp_path, **chosen)
    expected = held_in(tmp_path / "whole", "last.ckpt")
    stop, folder = trainer.num_training_batches + 1, tmp_path / "stopped"
    run(folder, tmp_path, max_steps=stop, **chosen)
    resumed, trainer = run(folder, tmp_path, ckpt=folder / "checkpoints" / "last.ckpt", **chosen)
    assert trainer.global_step == TOTAL
    assert_same(weights(resumed), weights(whole), atol=0, rtol=0)
    found = held_in(folder, "last.ckpt")
    for entry in ("state_dict", AVERAGE):
        assert_same(found[entry], expected[entry], atol=0, rtol=0)
    assert [found["callbacks"]["WeightAverage"], found["global_step"]] == [{"updates": TOTAL}, TOTAL]


def test_a_fit_may_resume_with_an_average_that_its_checkpoint_lacks_and_without_one_that_it_has(tmp_path):
    plain, _ = run(tmp_path / "plain", tmp_path, samples=0)
    for name, first, then in (("added", {}, {"ema_decay": 0.8}), ("dropped", {"ema_decay": 0.8}, {})):
        run(tmp_path / name, tmp_path, max_steps=5, samples=0, **first)
        last = tmp_path / name / "checkpoints" / "last.ckpt"
        resumed, _ = run(tmp_path / name, tmp_path, ckpt=last, samples=0, **then)
        assert_same(weights(resumed), weights(plain), atol=0, rtol=0)
        assert (AVERAGE in held_in(tmp_path / name, "last.ckpt")) == bool(then)


def test_tied_weights_stay_tied(tmp_path):
    names = [f"model.{part}.encoder.layer.0.output.dense.weight" for part in ("encoder", "decoder.bert")]
    run(tmp_path, tmp_path, bridge=BridgeSettings(share=Share.weights), ema_decay=0.5, max_steps=2)
    for name in ("best.ckpt", "last.ckpt"):
        held = held_in(tmp_path, name)
        for state in (held["state_dict"], held.get(AVERAGE, held["state_dict"])):
            assert len({state[name].data_ptr() for name in names}) == 1
    assert not torch.equal(held["state_dict"][names[0]], held[AVERAGE][names[0]])


def test_frozen_weights_are_not_copied(tmp_path):
    model = tiny_model().double()
    model.encoder.requires_grad_(False)
    module = Recorder(model, Letters(), RATES, {}, total_steps=4, hparams={})
    fit(tmp_path, 2, 1, module=module, ema_decay=0.5)
    held = held_in(tmp_path, "last.ckpt")
    own, average = held["state_dict"], held[AVERAGE]
    copied = {name for name in own if own[name].data_ptr() != average[name].data_ptr()}
    assert copied >= {f"model.{name}" for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert not any(name.startswith("model.encoder.") for name in copied)


def test_adapters_are_averaged(tmp_path):
    pytest.importorskip("peft")
    bridge = BridgeSettings(lora=WhichSubmodels.decoder)
    run(tmp_path, tmp_path, bridge=bridge, ema_decay=0.5, max_steps=2, samples=0)
    held = held_in(tmp_path, "last.ckpt")
    adapters = [name for name in held["state_dict"] if "lora_B" in name]
    assert adapters
    assert not any(torch.equal(held["state_dict"][name], held[AVERAGE][name]) for name in adapters)


def test_the_checkpoint_for_replay_holds_the_weights_themselves(tmp_path):
    folder, given = CheckpointDir(tmp_path), {"state_dict": {"w": torch.ones(1)}, AVERAGE: {"w": torch.zeros(1)}}
    found = {}
    for path in (folder.best, folder.top(3), folder.last, folder.nonfinite, tmp_path / "other.ckpt"):
        AtomicCheckpointIO().save_checkpoint(given, path)
        held = torch.load(path, weights_only=True)
        found[path.name] = [float(held["state_dict"]["w"]), AVERAGE in held]
    both = [1.0, True]
    expected = {"best.ckpt": [0.0, False], "top-3.ckpt": [0.0, False], "nonfinite.ckpt": [1.0, False]}
    assert found == expected | {"last.ckpt": both, "other.ckpt": both}
