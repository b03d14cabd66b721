"""The optimizer step is the same however its batches are cut, and what is logged is what was trained on."""

import enum
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from tiny_training import (
    SIZE,
    STILL,
    Letters,
    Recorder,
    Rows,
    assert_same,
    batches,
    fit,
    in_parts,
    rows,
    tiny_model,
    weights_of,
)
from transformers import BertConfig

from warmstart.config.training import OptimSettings
from warmstart.errors import UserError
from warmstart.model.extractive import ExtractiveConfig, ExtractiveModel
from warmstart.model.selector import SelectorConfig
from warmstart.training.module import SummarizationModule, require_plain


def reference_gradients(batch, label_smoothing=0.0):
    model = tiny_model().double()
    ids = (batch["input_ids"], batch["attention_mask"], batch["labels"])
    loss, _, tokens = model.training_loss(*ids, label_smoothing=label_smoothing)
    (loss / tokens).backward()
    return {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize(("size", "accumulate"), [(8, 1), (4, 2), (2, 4), (1, 8), (3, 3)])
def test_gradients_of_accumulated_batches_are_those_of_one(size, accumulate, tmp_path):
    module, _ = fit(tmp_path, size, accumulate, clip_norm=0.0)
    (found,) = module.gradients
    assert_same(found, reference_gradients(rows()))


@pytest.mark.parametrize(("size", "accumulate"), [(8, 1), (4, 2)])
def test_gradients_of_batches_in_target_buckets_are_those_of_one(size, accumulate, tmp_path):
    log, data = Rows(), [in_parts(batch) for batch in batches(size)]
    assert all(len(batch["buckets"]) == 2 for batch in data)
    optim = OptimSettings(encoder_rate=0.0, decoder_rate=0.0, new_rate=0.0, label_smoothing=0.2)
    module, _ = fit(tmp_path, size, accumulate, train=data, clip_norm=0.0, optim=optim, loggers=[log])
    (found,) = module.gradients
    assert_same(found, reference_gradients(rows(), 0.2))
    assert log.of("train/loss") == pytest.approx(log.of("validation/loss"), rel=1e-6)  # which is never cut


def test_compiled_layers_decode_whole_batches(tmp_path):
    data = [in_parts(batch) for batch in batches(4)]
    found = []
    for compiled in (False, True):
        module = Recorder(tiny_model().double(), Letters(), STILL, {"max_new_tokens": 4}, total_steps=4, hparams={})
        if compiled:
            for layer in (*module.model.encoder.encoder.layer, *module.model.decoder.bert.encoder.layer):
                layer.compile(backend="eager", dynamic=True)
        fit(tmp_path / str(compiled), 4, 2, train=data, module=module, clip_norm=0.0)
        found.append(module.throughput()["padding_fraction"])
        assert_same(module.gradients[0], reference_gradients(rows()))
    real = sum(int(batch["attention_mask"].sum() + (batch["labels"] != -100).sum()) for batch in data)
    places = [8 * 6 + sum(a * b for batch in data for a, b in batch["buckets"]), 8 * (6 + 9)]
    assert found == pytest.approx([1 - real / count for count in places])


def test_an_incomplete_step_at_the_end_of_an_epoch_is_divided_by_its_own_tokens(tmp_path):
    module, trainer = fit(tmp_path, 3, 2, clip_norm=0.0)  # batches of 3, 3 and 2 rows, two accumulated
    assert trainer.global_step == 2
    whole, rest = module.gradients
    assert_same(whole, reference_gradients({k: v[:6] for k, v in rows().items()}))
    assert_same(rest, reference_gradients({k: v[6:] for k, v in rows().items()}))


def test_smoothing_trains_on_the_smoothed_loss_and_logs_the_plain_one(tmp_path):
    log = Rows()
    optim = OptimSettings(encoder_rate=0.0, decoder_rate=0.0, new_rate=0.0, label_smoothing=0.2)
    module, _ = fit(tmp_path, 4, 2, optim=optim, loggers=[log], clip_norm=0.0)
    assert_same(module.gradients[0], reference_gradients(rows(), 0.2))
    data = rows()
    with torch.no_grad():
        _, nll, tokens = tiny_model().double().training_loss(data["input_ids"], data["attention_mask"], data["labels"])
    assert log.of("train/loss") == pytest.approx([float(nll / tokens)], rel=1e-5)
    assert log.of("validation/loss") == pytest.approx([float(nll / tokens)], rel=1e-5)


def test_clipping_comes_after_the_division(tmp_path):
    log = Rows()
    (free,) = fit(tmp_path / "a", 2, 4, loggers=[log], clip_norm=0.0)[0].gradients
    norm = torch.nn.utils.get_total_norm(free.values())
    assert log.of("train/gradient_norm") == pytest.approx([float(norm)], rel=1e-5)
    (clipped,) = fit(tmp_path / "b", 2, 4, clip_norm=float(norm) / 2)[0].gradients
    assert_same(clipped, {name: gradient / 2 for name, gradient in free.items()}, atol=1e-6)


@pytest.mark.parametrize(("size", "accumulate"), [(4, 2), (1, 8)])
def test_weights_after_steps_do_not_depend_on_the_batching(size, accumulate, tmp_path):
    optim = OptimSettings(warmup_steps=0)
    whole, _ = fit(tmp_path / "a", 8, 1, optim=optim, max_epochs=3)
    cut, trainer = fit(tmp_path / "b", size, accumulate, optim=optim, max_epochs=3)
    assert trainer.global_step == 3
    assert_same(weights_of(cut), weights_of(whole))


def test_fused_adamw_clipping_and_bf16_work_together(tmp_path):
    module, trainer = fit(tmp_path, 4, 2, precision="bf16-mixed", optim=OptimSettings(warmup_steps=0))
    assert trainer.optimizers[0].defaults["fused"]
    (found,) = module.gradients
    expected = reference_gradients(rows())
    scale = max(float(g.abs().max()) for g in expected.values())
    assert_same(found, expected, atol=0.05 * scale, rtol=0.1)


def test_a_loss_scale_is_divided_out_before_clipping(tmp_path):
    """fp16's scaler: a fused optimizer would unscale inside its step, after we had clipped scaled gradients."""
    log = Rows()
    plugin = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=1024.0))
    module, trainer = fit(tmp_path, 4, 2, extra={"plugins": [plugin]}, loggers=[log], clip_norm=0.0)
    assert not trainer.optimizers[0].defaults["fused"]
    expected = reference_gradients(rows())
    scale = max(float(g.abs().max()) for g in expected.values())
    assert_same(module.gradients[0], expected, atol=0.02 * scale, rtol=0.05)


def test_validation_loss_is_a_mean_over_tokens_not_batches(tmp_path):
    log = Rows()
    module = SummarizationModule(tiny_model(), Letters(), STILL, {}, total_steps=4, hparams={})
    _, trainer = fit(tmp_path, 8, 1, module=module, loggers=[log])
    unequal = [{k: v[:1] for k, v in rows().items()}, {k: v[1:] for k, v in rows().items()}]
    trainer.validate(module, torch.utils.data.DataLoader(unequal, batch_size=None), verbose=False)
    together, apart = log.of("validation/loss")
    assert apart == pytest.approx(together, rel=1e-5)


def test_learning_rates_throughput_and_memory_are_logged(tmp_path):
    log = Rows()
    module = Recorder(tiny_model(), Letters(), OptimSettings(), {}, total_steps=4, hparams={}, log_every=2)
    fit(tmp_path, 2, 1, module=module, loggers=[log], log_every=2)
    names = {name for row in log.rows for name in row}
    assert {"rate/encoder", "rate/decoder", "rate/new", "memory/peak_bytes"} <= names
    assert len(log.of("throughput/tokens_per_second")) == len(log.of("train/loss")) == 2
    data = rows()
    real = data["attention_mask"].sum() + (data["labels"] != -100).sum()
    places = data["input_ids"].numel() + sum(batch["labels"].numel() for batch in batches(2))
    assert module.throughput()["padding_fraction"] == pytest.approx(1 - float(real) / places)
    assert module.throughput()["tokens_per_second"] > 0


def test_divergence_ends_in_a_message_and_keeps_the_checkpoints(tmp_path):
    fit(tmp_path, 8, 1)
    before = (tmp_path / "checkpoints" / "last.ckpt").read_bytes()
    broken = Recorder(tiny_model(), Letters(), STILL, {}, total_steps=4, hparams={})
    broken.model.decoder.get_output_embeddings().weight.data.fill_(torch.nan)
    with pytest.raises(UserError, match="The validation loss is nan"):
        fit(tmp_path, 8, 1, module=broken)
    assert (tmp_path / "checkpoints" / "last.ckpt").read_bytes() == before


def test_hyperparameters_must_be_plain_values():
    class Kind(enum.StrEnum):
        a = "a"

    require_plain({"a": [1, 2.0, None, {"b": True}]})
    wrong = [({"a": {"b": Kind.a}}, r"hparams\.a\.b"), ([torch.ones(1)], r"hparams\[0\]"), (Path("x"), "Path")]
    for value, named in wrong:
        with pytest.raises(TypeError, match=named):
            require_plain(value)
    with pytest.raises(TypeError, match="plain"):
        SummarizationModule(tiny_model(), None, STILL, {}, total_steps=1, hparams={"kind": Kind.a})


@pytest.mark.slow
def test_two_ranks_take_the_same_step_as_one(tmp_path):
    script = Path(__file__).with_name("two_ranks.py")
    outcome = subprocess.run(
        [sys.executable, script, tmp_path], capture_output=True, text=True, check=False, timeout=240
    )
    assert outcome.returncode == 0, outcome.stderr[-3000:]
    found = torch.load(tmp_path / "two_ranks.pt", weights_only=True)
    assert_same(found["gradients"], reference_gradients(rows()))
    assert found["samples"] == list(range(5))


@pytest.mark.parametrize("name", ["config", "tokenizers", "data"])
def test_ranks_with_different_inputs_do_not_train_together(name, tmp_path):
    script = Path(__file__).with_name("different_ranks.py")
    outcome = subprocess.run(
        [sys.executable, script, tmp_path, name], capture_output=True, text=True, timeout=120, check=False
    )
    assert outcome.returncode != 0
    said = f"The ranks of this fit differ in their {name}: {name} 0 on rank 0; {name} 1 on rank 1."
    assert said in outcome.stderr


def test_validation_measures_the_effect_of_the_document(tmp_path, caplog):
    log = Rows()
    model = tiny_model().double()
    fit(tmp_path, 8, 1, loggers=[log], module=Recorder(model, Letters(), STILL, {}, total_steps=1, hparams={}))
    (found,) = log.of("validation/source_effect")
    batch, sums = rows(), []
    for order in (torch.arange(8), torch.arange(8).roll(1)):
        with torch.no_grad():
            source = batch["input_ids"][order], batch["attention_mask"][order]
            _, nll, tokens = model.training_loss(*source, batch["labels"])
        sums.append(float(nll / tokens))
    assert found == pytest.approx(sums[1] - sums[0], abs=1e-6)
    assert ("ignores its document" in caplog.text) == (found < 0.002)


def test_a_model_that_labels_the_sentences_of_its_document_has_no_effect_of_another_one(tmp_path, caplog):
    log, ids = Rows(), {"decoder_start_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    encoder, selector = BertConfig(**SIZE, sentence_start_id=1), SelectorConfig(hidden_size=16, vocab_size=40)
    config = ExtractiveConfig(encoder=encoder, decoder=selector, **ids, sentence_end_id=2, sentence_separator_id=3)
    data = rows()
    data["input_ids"][:, ::2] = 1  # three sentences, of which padding leaves every third document two
    data["labels"] = torch.tensor([[2, 1, 0, -100], *[[2, 1, 0, 0]] * 2] * 3)[:8]
    module = Recorder(ExtractiveModel(config), Letters(), STILL, {}, total_steps=1, hparams={})
    fit(tmp_path, 8, 1, loggers=[log], train=batches(8, data), validation=batches(8, data), module=module)
    assert len(log.of("validation/loss")) == 1
    assert log.of("validation/source_effect") == []
    assert "ignores its document" not in caplog.text
