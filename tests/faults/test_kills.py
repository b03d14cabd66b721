"""A fit that is killed at a random moment and repeated by the same command ends with the same weights, bit by bit.

There are 14 moments: four in each of three settings and two under FSDP. SEED chooses moments and signals.
"""

import csv
import random
import signal
from pathlib import Path

import pytest
import torch

from warmstart.runs.checkpoint_io import is_sound

pytestmark = pytest.mark.slow
KILLED = Path(__file__).with_name("killed_fit.py")
SEED = 20
FIT = (
    *("debug=tiny", "name=run", "encoder=bert", "decoder=bert", "trainer.precision=32-true"),
    *("trainer.max_epochs=20", "trainer.max_steps=40", "evaluation.control_samples=0"),
)
SETTINGS = {
    "workers": ("data.batch.workers=1", "trainer.save_every=3", "optim.new_optimizer=muon"),
    "schedules": (
        *("bridge.warmup_steps=9", "optim.warmup_steps=20", "trainer.patience=50"),
        *("trainer.accumulate=2", "trainer.validations_per_epoch=2"),
    ),
    "two_ranks": ("trainer.devices=2", "trainer.strategy=ddp"),
    "shards": ("trainer=fsdp", "trainer.accelerator=cpu", "trainer.max_steps=12"),
}


def left_by(folder: Path) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Return the last weights and the loss of each step."""
    last = folder / "runs" / "run" / "checkpoints" / "last.ckpt"
    assert is_sound(last)
    with (folder / "runs" / "run" / "metrics.csv").open(newline="") as file:
        losses = [(row["step"], row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
    return torch.load(last, weights_only=True)["state_dict"], losses


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_fit_killed_at_random_moments_ends_with_the_same_weights(setting, run_py, tmp_path, monkeypatch):
    words = (*FIT, *SETTINGS[setting])
    whole = tmp_path / "whole"
    whole.mkdir()
    # This signal never comes. The duration of the whole fit bounds the random moments.
    monkeypatch.setenv("SIGNAL", "9")
    monkeypatch.setenv("SECONDS", "86400")
    outcome = run_py(*words, cwd=whole, script=KILLED)
    assert outcome.returncode == 0, outcome.stderr[-3000:]
    weights, losses = left_by(whole)
    assert len(losses) == (12 if setting == "shards" else 40)
    seconds = seconds_of_fit(whole)

    chosen = random.Random(f"{SEED} {setting}")
    statuses = []
    for moment in range(2 if setting == "shards" else 4):
        folder = tmp_path / str(moment)
        folder.mkdir()
        number = chosen.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
        after = str(chosen.uniform(0, 0.9) * seconds)
        monkeypatch.setenv("SIGNAL", str(int(number)))
        monkeypatch.setenv("SECONDS", after)
        killed = run_py(*words, cwd=folder, script=KILLED)
        statuses.append(killed.returncode)
        assert killed.returncode in (-number, 128 + number, 0), killed.stderr[-3000:]
        assert "Traceback" not in killed.stderr or number == signal.SIGKILL, killed.stderr[-3000:]
        if killed.returncode == 0:  # it ended before: the machine was busier during the whole fit
            seconds = seconds_of_fit(folder)
        again = run_py(*words, cwd=folder)
        assert again.returncode == 0, again.stderr[-3000:]
        found, found_losses = left_by(folder)
        assert found_losses == losses, (number, after)
        assert found.keys() == weights.keys()
        for name, tensor in found.items():
            assert torch.equal(tensor, weights[name]), (name, number, after)
    assert any(statuses)


def seconds_of_fit(folder: Path) -> float:
    """Return the seconds from the start of training to the last checkpoint, by the times of its files."""
    checkpoints = folder / "runs" / "run" / "checkpoints"
    tokenizers = checkpoints / "tokenizers"
    return (checkpoints / "last.ckpt").stat().st_mtime - tokenizers.stat().st_mtime
