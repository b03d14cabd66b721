"""A fit that was cut in two is the fit that was not: real texts, tokenizers and batches, checkpoints of data alone."""

import functools

import pytest
import torch
from tiny_training import Rows, assert_same, fit, tiny_model

from warmstart import EncoderDecoderConfig, EncoderDecoderModel
from warmstart.data.datamodule import SummarizationDataModule
from warmstart.data.settings import BatchSettings, DataKind, DataSettings
from warmstart.data.sources import load_source
from warmstart.data.tokenizers import load_pair
from warmstart.errors import UserError
from warmstart.model.halves import build_model
from warmstart.model.settings import BridgeSettings, HalfSettings, Scale, Weights
from warmstart.training.checkpoint_io import AtomicCheckpointIO
from warmstart.training.module import SummarizationModule
from warmstart.training.settings import OptimSettings, TrainerSettings
from warmstart.training.trainer import build_trainer

HALF = HalfSettings("bert", "google-bert/bert-base-uncased", "bert", weights=Weights.random, scale=Scale.tiny)
TOTAL = 9


@functools.cache
def pair():
    texts = load_source(DataSettings(name="written", kind=DataKind.written)).split("train")
    return load_pair(HALF, HALF, lambda: (text for example in texts for text in example[1:]))


def run(folder, cache, *, ckpt=None, loggers=(), thaw_after=0, **settings):
    data = DataSettings(
        name="written",
        kind=DataKind.written,
        max_source_length=48,
        max_target_length=16,
        limit_validation=4,
        batch=BatchSettings(max_tokens=320),
        cache_dir=str(cache),
    )
    module_data = SummarizationDataModule(data, pair(), seed=1)
    torch.manual_seed(0)
    sizes = {"encoder_vocab_size": len(pair().source), "decoder_vocab_size": len(pair().target)}
    model = build_model(HALF, HALF, BridgeSettings(), special_ids=pair().special_ids(), **sizes)
    assert model.config.decoder.hidden_dropout_prob > 0  # resuming repeats what dropout drew, too
    model = EncoderDecoderModel(model.config)  # of which the bridge alone counts as new
    module = SummarizationModule(
        model.train(),
        pair(),
        OptimSettings(warmup_steps=2),
        {"max_new_tokens": 4},
        total_steps=TOTAL,
        hparams={"model_config": model.config.to_dict(), "config": {"seed": 1}},
        validation_samples=3,
        score=lambda predictions, references: {"length": float(len(predictions[0]))},
        thaw_after=thaw_after,
    )
    chosen = {"max_epochs": 9, "max_steps": TOTAL, "accelerator": "cpu", "progress_bar": False, "log_every": 1}
    trainer = build_trainer(TrainerSettings(**(chosen | settings)), folder, list(loggers), [])
    trainer.fit(module, datamodule=module_data, ckpt_path=ckpt)
    return module, trainer


def weights(module):
    return {name: p.detach() for name, p in module.model.named_parameters()}


@pytest.mark.parametrize(("patience", "thaw_after"), [(None, 0), (5, 0), (None, 4)])
def test_resuming_last_continues_at_its_step(patience, thaw_after, tmp_path):
    chosen = {"patience": patience, "thaw_after": thaw_after}
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


def test_checkpoints_are_two_files_of_data_alone(tmp_path):
    module, _ = run(tmp_path, tmp_path / "cache", validations_per_epoch=2, max_steps=5)
    files = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert files == ["best.ckpt", "last.ckpt"]
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


def test_a_fit_without_validation_still_keeps_its_last_state(tmp_path):
    fit(tmp_path, 8, 1, extra={"limit_val_batches": 0})
    assert (tmp_path / "checkpoints" / "last.ckpt").exists()


def test_a_write_that_fails_leaves_the_earlier_file(tmp_path):
    files, path = AtomicCheckpointIO(), tmp_path / "checkpoints" / "last.ckpt"
    files.save_checkpoint({"step": 1}, path)
    with pytest.raises((AttributeError, TypeError)):
        files.save_checkpoint({"step": lambda: 2}, path)
    assert files.load_checkpoint(path) == {"step": 1}
    assert [entry.name for entry in path.parent.iterdir()] == ["last.ckpt"]


def test_damaged_and_unsafe_checkpoints_are_refused(tmp_path):
    files = AtomicCheckpointIO()
    (tmp_path / "damaged.ckpt").write_bytes(b"nothing")
    torch.save({"model": tiny_model()}, tmp_path / "code.ckpt")
    for name, said in [("absent", "no such file"), ("damaged", "cannot be read"), ("code", "holds code")]:
        with pytest.raises(UserError, match=said):
            files.load_checkpoint(tmp_path / f"{name}.ckpt", weights_only=False)
