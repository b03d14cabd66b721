"""Choices of a fit that change what it costs and not what it learns: checkpointed activations, compiled layers."""

import csv

import pytest
import transformers

from warmstart.runs.run_dir import RunDir
from warmstart.tasks import fit
from warmstart.tasks.check import faults

FIT = ["debug=tiny", "encoder=bert", "decoder=gpt2", "trainer.precision=32-true", "trainer.log_every=1"]


def losses(folder):
    with (folder / "metrics.csv").open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row.get("train/loss")]


def same_losses(settings_of, tmp_path, word, *always):
    for name, words in {"plain": [], "chosen": [word]}.items():
        fit.run(settings_of(*FIT, *always, *words), tmp_path / name)
    plain, chosen = (losses(tmp_path / name) for name in ("plain", "chosen"))
    assert len(plain) == 3
    assert chosen == pytest.approx(plain, rel=1e-5)
    scores = (RunDir(tmp_path / name).read_result()["metrics"]["test/rouge1"] for name in ("plain", "chosen"))
    assert len(set(scores)) == 1


def test_checkpointed_activations_change_no_loss(settings_of, tmp_path, monkeypatch):
    calls = []
    original = transformers.modeling_utils.checkpoint
    monkeypatch.setattr(
        transformers.modeling_utils,
        "checkpoint",
        lambda *args, **kwargs: (calls.append(args), original(*args, **kwargs))[1],
    )
    same_losses(settings_of, tmp_path, "trainer.checkpoint_activations=true")
    assert calls


@pytest.mark.slow
def test_compiled_layers_change_no_loss(settings_of, tmp_path):
    # Without dropout: compiled code draws other numbers from the same seed.
    same_losses(settings_of, tmp_path, "trainer.compile=true", "bridge.dropout=0")


def test_a_decoder_that_checkpointing_would_break_is_named(settings_of):
    words = ["debug=tiny", "decoder=bert", "decoder.model_type=roformer", "encoder=bert"]
    assert faults(settings_of(*words)) == []
    [found] = faults(settings_of(*words, "trainer.checkpoint_activations=true"))
    assert "trainer.checkpoint_activations=true" in found
