"""The optimizer step is the same however its batches are cut; rates, schedules and precision are what was asked."""

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader
from transformers import BertConfig

from warmstart import EncoderDecoderConfig, EncoderDecoderModel
from warmstart.errors import UserError
from warmstart.training.loggers import build_loggers, close_loggers
from warmstart.training.module import SummarizationModule
from warmstart.training.optimizer import parameter_groups
from warmstart.training.schedule import rate_factor
from warmstart.training.settings import Decay, LoggerSettings, OptimSettings, TrainerSettings
from warmstart.training.trainer import build_trainer, resolve_precision

SIZE = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 24,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


def tiny_model():
    torch.manual_seed(0)
    ids = {"decoder_start_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    halves = {"encoder": BertConfig(**SIZE), "decoder": BertConfig(**SIZE)}
    return EncoderDecoderModel(EncoderDecoderConfig(**halves, **ids)).train()


def rows():
    torch.manual_seed(1)
    source, labels = torch.randint(3, 40, (8, 6)), torch.randint(3, 40, (8, 9))
    for i in range(8):
        labels[i, 1 + i :] = -100  # 1 to 8 label tokens: batches of very different weight
    return {"input_ids": source, "attention_mask": torch.ones_like(source), "labels": labels, "index": torch.arange(8)}


def weights_after(batch_size, accumulate, tmp_path, clip_norm=1.0):
    model, data = tiny_model(), rows()
    batches = [{k: v[i : i + batch_size] for k, v in data.items()} for i in range(0, 8, batch_size)]
    module = SummarizationModule(model, None, OptimSettings(warmup_steps=0), {}, total_steps=4, hparams={})
    settings = TrainerSettings(
        max_epochs=2, accumulate=accumulate, accelerator="cpu", progress_bar=False, clip_norm=clip_norm
    )
    trainer = build_trainer(settings, tmp_path, [], [])
    trainer.fit(module, DataLoader(batches, batch_size=None), DataLoader(batches[:1], batch_size=None))
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
@pytest.mark.parametrize(("batch_size", "accumulate"), [(4, 2), (2, 4), (1, 8)])
def test_accumulated_batches_equal_one_batch(batch_size, accumulate, clip_norm, tmp_path):
    whole = weights_after(8, 1, tmp_path / "a", clip_norm)
    for name, weight in weights_after(batch_size, accumulate, tmp_path / "b", clip_norm).items():
        torch.testing.assert_close(weight, whole[name], atol=1e-5, rtol=1e-4, msg=name)


def test_a_batch_that_is_left_over_makes_a_step_of_its_own(tmp_path):
    """Three batches, two accumulated: the third is normalised by its own tokens."""
    weights = weights_after(3, 2, tmp_path)
    assert all(torch.isfinite(weight).all() for weight in weights.values())


def test_each_part_has_its_rate_and_vectors_no_decay():
    model = tiny_model()
    groups = {g["name"]: g for g in parameter_groups(model, OptimSettings(encoder_rate=1, decoder_rate=2, new_rate=3))}
    assert {name: group["lr"] for name, group in groups.items()} == {
        "encoder": 1,
        "encoder_no_decay": 1,
        "decoder": 2,
        "decoder_no_decay": 2,
        "new": 3,
        "new_no_decay": 3,
    }
    assert all(p.dim() == 1 for p in groups["new_no_decay"]["params"])
    listed = [id(p) for group in groups.values() for p in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in model.parameters())


@pytest.mark.parametrize(
    ("decay", "at_half", "at_end"),
    [(Decay.linear, 0.5, 0.0), (Decay.cosine, 0.5, 0.0), (Decay.constant, 1.0, 1.0), (Decay.inverse_sqrt, 0.42, 0.31)],
)
def test_schedules(decay, at_half, at_end):
    factor = rate_factor(OptimSettings(warmup_steps=10, decay=decay), 110)
    assert factor(0) == pytest.approx(0.1)
    assert factor(9) == 1.0
    assert factor(60) == pytest.approx(at_half, abs=0.02)
    assert factor(110) == pytest.approx(at_end, abs=0.02)


def test_precision_is_fp32_where_bf16_is_not_native():
    assert resolve_precision("auto", "cpu") == "32-true"
    assert resolve_precision("16-mixed", "cpu") == "16-mixed"


def test_unknown_trainer_options_are_named(tmp_path):
    with pytest.raises(UserError, match="no_such_option"):
        build_trainer(TrainerSettings(extra={"no_such_option": 1}), tmp_path, [], [])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_wandb_goes_offline_without_a_key_and_keeps_its_run(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "absent"))
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = LoggerSettings(name="wandb", wandb=True)
    loggers = build_loggers(settings, tmp_path, run_name="r", config={"a": 1}, tags=["t"])
    loggers[1].log_metrics({"x": 1.0}, 1)
    close_loggers(0)
    (offline,) = tmp_path.glob("wandb/offline-run-*")
    assert offline.name.endswith((tmp_path / "wandb_id.txt").read_text())
    assert isinstance(loggers[0], L.pytorch.loggers.CSVLogger)
