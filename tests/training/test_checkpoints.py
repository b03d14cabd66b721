"""A resumed fit equals an uninterrupted one, on real texts, tokenizers and batches; checkpoints only hold data."""

import contextlib
import os
import resource
import signal
from pathlib import Path

import pytest
import torch
from tiny_training import Rows, assert_same, fit, tiny_model
from written_training import TOTAL, run, weights

from warmstart import EncoderDecoderConfig, EncoderDecoderModel
from warmstart.errors import UserError
from warmstart.runs.checkpoint_io import AtomicCheckpointIO, is_sound, newest_sound
from warmstart.training.callbacks.checkpoints import top_steps


@pytest.mark.parametrize(("patience", "unfreeze_after"), [(None, 0), (5, 0), (None, 4)])
def test_resuming_last_continues_at_its_step(patience, unfreeze_after, tmp_path):
    chosen = {"patience": patience, "unfreeze_after": unfreeze_after}
    whole, trainer = run(tmp_path / "whole", tmp_path, **chosen)
    batches = trainer.num_training_batches
    assert batches > 2
    for stop in (batches - 1, batches, batches + 1):  # inside an epoch, at its end, inside the next
        folder, log = tmp_path / f"stop{stop}", Rows()
        run(folder, tmp_path, max_steps=stop, **chosen)
        resumed, trainer = run(folder, tmp_path, ckpt=folder / "checkpoints" / "last.ckpt", loggers=[log], **chosen)
        assert trainer.global_step == TOTAL
        assert [row["step"] for row in log.rows if "train/loss" in row] == list(range(stop, TOTAL))
        assert_same(weights(resumed), weights(whole), atol=0, rtol=0)


def test_checkpoints_only_hold_data(tmp_path):
    module, _ = run(tmp_path, tmp_path / "cache", validations_per_epoch=2, max_steps=5)
    files = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert files == ["SHA256SUMS", "best.ckpt", "last-1.ckpt", "last.ckpt"]
    held = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert held["global_step"] == 5
    rebuilt = EncoderDecoderModel(EncoderDecoderConfig(**held["hyper_parameters"]["model_config"]))
    rebuilt.load_state_dict({name.removeprefix("model."): value for name, value in held["state_dict"].items()})
    assert_same(dict(rebuilt.named_parameters()), weights(module), atol=0, rtol=0)


def test_the_last_steps_are_validated_and_kept(tmp_path):
    log = Rows()
    _, trainer = run(tmp_path, tmp_path / "cache", max_steps=1, loggers=[log])
    assert trainer.num_training_batches > 1
    assert len(log.of("validation/loss")) == 1
    assert torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)["global_step"] == 1


def test_minutes_bound_the_fit(tmp_path):
    _, trainer = run(tmp_path, tmp_path / "cache", max_minutes=0.5 / 60, max_steps=-1, max_epochs=10_000)
    assert 0 < trainer.current_epoch < 10_000
    assert (tmp_path / "checkpoints" / "last.ckpt").exists()


def test_patience_ends_a_fit_that_does_not_improve(tmp_path):
    _, trainer = fit(tmp_path, 8, 1, max_epochs=50, patience=2)  # rates of zero
    assert trainer.current_epoch == 3


def test_a_fit_that_patience_ended_trains_no_further_after_a_resume(tmp_path):
    _, ended = fit(tmp_path, 8, 1, max_epochs=50, patience=2)
    last = tmp_path / "checkpoints" / "last.ckpt"
    _, resumed = fit(tmp_path, 8, 1, max_epochs=50, patience=2, ckpt_path=last)
    assert resumed.global_step == ended.global_step
    _, patient = fit(tmp_path, 8, 1, max_epochs=50, patience=4, ckpt_path=last)
    assert patient.current_epoch == ended.current_epoch + 2


def test_a_fit_without_validation_still_keeps_its_last_state(tmp_path):
    fit(tmp_path, 8, 1, extra={"limit_val_batches": 0})
    assert (tmp_path / "checkpoints" / "last.ckpt").exists()


def test_a_write_that_fails_leaves_the_earlier_file(tmp_path):
    files, path = AtomicCheckpointIO(), tmp_path / "checkpoints" / "last.ckpt"
    files.save_checkpoint({"step": 1}, path)
    with pytest.raises((AttributeError, TypeError)):
        files.save_checkpoint({"step": lambda: 2}, path)
    assert files.load_checkpoint(path) == {"step": 1}
    assert sorted((entry.name for entry in path.parent.iterdir()), reverse=True) == ["last.ckpt", "SHA256SUMS"]


def test_damaged_and_unsafe_checkpoints_are_refused(tmp_path):
    files = AtomicCheckpointIO()
    (tmp_path / "damaged.ckpt").write_bytes(b"nothing")
    torch.save({"model": tiny_model()}, tmp_path / "code.ckpt")
    for name, said in [("absent", "no such file"), ("damaged", "cannot be read"), ("code", "holds code")]:
        with pytest.raises(UserError, match=said):
            files.load_checkpoint(tmp_path / f"{name}.ckpt", weights_only=False)


def test_a_damaged_checkpoint_is_detected_and_the_previous_one_used(tmp_path, caplog):
    files = AtomicCheckpointIO(keep=3)
    for step in range(5):
        files.save_checkpoint({"step": step, "weights": torch.full((100,), float(step))}, tmp_path / "last.ckpt")
    kept = ["last.ckpt", "last-1.ckpt", "last-2.ckpt"]
    assert [files.load_checkpoint(tmp_path / name)["step"] for name in kept] == [4, 3, 2]
    assert all(is_sound(tmp_path / name) for name in kept)
    assert newest_sound(tmp_path) == tmp_path / "last.ckpt"

    last = tmp_path / "last.ckpt"
    whole = last.read_bytes()
    for damaged in (whole[:-1], whole[: len(whole) // 2], b"", whole[:700] + bytes([whole[700] ^ 1]) + whole[701:]):
        last.unlink()  # the newer names may be links to one file
        last.write_bytes(damaged)
        assert not is_sound(last)
        caplog.clear()
        assert newest_sound(tmp_path) == tmp_path / "last-1.ckpt"
        assert "Damaged checkpoints: " in caplog.text
    for name in kept:
        (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"last\.ckpt.*last-2\.ckpt"):
        newest_sound(tmp_path)


@pytest.mark.parametrize("call", range(1, 12))
def test_a_kill_between_any_two_of_its_writes_leaves_sound_checkpoints(call, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    files = AtomicCheckpointIO(keep=3)
    for step in range(4):
        files.save_checkpoint({"step": step}, tmp_path / "last.ckpt")
    calls = 0

    def dying(function):
        def wrapped(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == call:
                raise Killed
            return function(*args, **kwargs)

        return wrapped

    for where, name in (("os", "link"), ("os", "fsync"), ("pathlib.Path", "replace")):
        module = os if where == "os" else Path
        monkeypatch.setattr(module, name, dying(getattr(module, name)))
    with contextlib.suppress(Killed):
        files.save_checkpoint({"step": 4}, tmp_path / "last.ckpt")
    monkeypatch.undo()
    for path in tmp_path.glob("last*.ckpt"):
        assert is_sound(path), path
    assert AtomicCheckpointIO().load_checkpoint(newest_sound(tmp_path))["step"] in (3, 4)
    files.save_checkpoint({"step": 5}, tmp_path / "last.ckpt")
    assert all(is_sound(path) for path in tmp_path.glob("last*.ckpt"))
    assert AtomicCheckpointIO().load_checkpoint(newest_sound(tmp_path))["step"] == 5


def test_a_full_disk_leaves_the_earlier_checkpoint_and_is_reported(tmp_path):
    # A real one: a file of 1 MiB for at most 512 KiB.
    files = AtomicCheckpointIO()
    files.save_checkpoint({"step": 1}, tmp_path / "last.ckpt")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**19, before[1]))
    try:
        with pytest.raises(Exception) as failure:  # noqa: PT011 - torch wraps the system's error
            files.save_checkpoint({"weights": torch.ones(2**18)}, tmp_path / "last.ckpt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    causes = [failure.value]
    while causes[-1].__context__ is not None:
        causes.append(causes[-1].__context__)
    assert any(isinstance(cause, OSError) for cause in causes)
    assert is_sound(tmp_path / "last.ckpt")
    assert files.load_checkpoint(tmp_path / "last.ckpt") == {"step": 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["SHA256SUMS", "last.ckpt"]


def test_best_is_not_replaced_by_a_worse_one_after_a_resume(tmp_path):
    def scores(*values):
        left = list(values)
        return lambda samples: {"score": left.pop(0) if len(samples) > 1 else 0.0}

    by_score = {"monitor": "validation/score", "monitor_mode": "max", "keep_last": 9}
    run(tmp_path, tmp_path, max_steps=9, score=scores(1.0, 5.0, 2.0, 3.0, 1.0), **by_score)
    best = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)["global_step"]
    first = sorted((tmp_path / "checkpoints").glob("last-*.ckpt"))[-1]  # from before the best one
    assert torch.load(first, weights_only=True)["global_step"] < best
    run(tmp_path, tmp_path, ckpt=first, max_steps=9, score=scores(4.0, 4.0, 4.0, 4.0), **by_score)
    assert torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)["global_step"] == best


def test_the_best_checkpoint_of_another_fit_is_ignored_after_a_resume(tmp_path):
    run(tmp_path / "a", tmp_path, max_steps=5, hparams={"config_hash": "a"})
    run(tmp_path / "b", tmp_path, max_steps=1, hparams={"config_hash": "b"})
    folder = tmp_path / "a" / "checkpoints"
    best = torch.load(folder / "best.ckpt", weights_only=True)
    assert best["global_step"] == 5
    other = (tmp_path / "b" / "checkpoints" / "last.ckpt").rename(folder / "of_b.ckpt")
    run(tmp_path / "a", tmp_path, ckpt=other, max_steps=2, hparams={"config_hash": "c"})
    assert torch.load(folder / "best.ckpt", weights_only=True)["global_step"] == 2


def test_the_best_checkpoints_are_known_after_a_resume_in_a_folder_that_was_moved(tmp_path):
    _, trainer = run(tmp_path / "a", tmp_path, max_steps=6, score_best=2, validations_per_epoch=3)
    steps = top_steps(trainer)
    assert len(steps) == 2
    (tmp_path / "a").rename(tmp_path / "b")
    last = tmp_path / "b" / "checkpoints" / "last.ckpt"
    _, trainer = run(tmp_path / "b", tmp_path, ckpt=last, max_steps=8, score_best=2, validations_per_epoch=3)
    found = top_steps(trainer)
    assert len(found) == 2
    assert max(found.values()) <= max(steps.values())
    assert {path.name for path in last.parent.glob("top-*")} == {f"top-{step}.ckpt" for step in found}


def test_a_damaged_zip_directory_of_a_checkpoint_without_checksum_does_not_crash(tmp_path):
    path = tmp_path / "last.ckpt"
    torch.save({"weight": torch.zeros(3)}, path)
    content = path.read_bytes()
    directory = content.index(b"PK\x01\x02")
    judged = set()
    for place in range(directory, len(content)):
        for value in (0x80, 0xFF):
            path.write_bytes(content[:place] + bytes([value]) + content[place + 1 :])
            judged.add(is_sound(path))
    assert False in judged
