"""An epoch has the configured number of validations, after whole optimizer steps, the last one at its end."""

import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch.callbacks import Callback
from tiny_training import assert_same
from written_training import run, weights

from warmstart.training.callbacks.checkpoints import validation_batches

TWO_EPOCHS = {"max_steps": -1, "max_epochs": 2, "samples": 0}


class Seen(Callback):
    """Epoch, batches and steps at each validation; ``keep`` copies ``last.ckpt`` of each."""

    def __init__(self, keep=None):
        self.validations, self.keep = [], keep

    def on_validation_end(self, trainer, pl_module):
        batches = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        self.validations.append((trainer.current_epoch, batches, trainer.global_step))

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        last = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
        if self.keep and last.exists():
            self.keep.mkdir(exist_ok=True)
            shutil.copy(last, self.keep / f"{len(self.validations)}.ckpt")


@given(st.integers(1, 200), st.integers(1, 8), st.data())
def test_validations_are_spread_evenly_over_whole_steps(batches, accumulate, data):
    steps = -(-batches // accumulate)
    each_epoch = data.draw(st.integers(1, steps))
    places = validation_batches(batches, each_epoch, accumulate)
    assert len(set(places)) == each_epoch
    assert places == sorted(places)
    assert places[-1] == batches
    assert all(place % accumulate == 0 for place in places[:-1])
    gaps = [-(-b // accumulate) - -(-a // accumulate) for a, b in zip([0, *places], places, strict=False)]
    assert max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize("asked", [1, 2, 3, 4, 5, 7])
def test_an_epoch_has_the_configured_number_of_validations(asked, tmp_path):
    seen = Seen()
    _, trainer = run(
        tmp_path, tmp_path / "cache", callbacks=[seen], validations_per_epoch=asked, **(TWO_EPOCHS | {"max_epochs": 1})
    )
    assert trainer.num_training_batches == 7
    assert len(seen.validations) == asked
    assert seen.validations[-1] == (0, 7, 7)
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 7


@pytest.mark.parametrize("accumulate", [3, 4])
def test_a_fit_resumes_from_any_of_its_validations(accumulate, tmp_path):
    settings = TWO_EPOCHS | {"accumulate": accumulate, "validations_per_epoch": 2}
    seen = Seen(tmp_path / "kept")
    whole, trainer = run(tmp_path / "whole", tmp_path / "cache", callbacks=[seen], **settings)
    steps = -(-7 // accumulate)
    first = -(-steps // 2) * accumulate
    assert seen.validations == [
        *((0, first, first // accumulate), (0, 7, steps)),
        *((1, first, steps + first // accumulate), (1, 7, 2 * steps)),
    ]
    kept = sorted((tmp_path / "kept").iterdir())
    assert [path.name for path in kept] == ["1.ckpt", "2.ckpt", "3.ckpt"]
    for path in kept:
        after = Seen()
        resumed, trainer = run(tmp_path / path.stem, tmp_path / "cache", ckpt=path, callbacks=[after], **settings)
        assert trainer.global_step == 2 * steps
        assert after.validations == seen.validations[int(path.stem) :]
        assert_same(weights(resumed), weights(whole), atol=0, rtol=0)


def test_a_fit_at_its_time_limit_ends_after_a_whole_step(tmp_path):
    """A timer may fire after any batch."""

    class Up(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            trainer.should_stop = batch_idx == 0

    seen = Seen()
    settings = TWO_EPOCHS | {"accumulate": 3}
    _, trainer = run(tmp_path, tmp_path / "cache", callbacks=[seen, Up()], **settings)
    assert seen.validations == [(0, 3, 1)]
    assert trainer.global_step == 1


def test_validations_every_few_epochs_and_at_the_end(tmp_path):
    seen = Seen()
    run(tmp_path, tmp_path / "cache", callbacks=[seen], epochs_per_validation=2, **(TWO_EPOCHS | {"max_epochs": 5}))
    assert [epoch for epoch, _, _ in seen.validations] == [1, 3, 4]


def test_a_fit_that_stops_between_two_validations_still_validates(tmp_path):
    seen = Seen()
    run(tmp_path, tmp_path / "cache", callbacks=[seen], epochs_per_validation=4, max_epochs=9, max_steps=10, samples=0)
    assert [step for _, _, step in seen.validations] == [10]
