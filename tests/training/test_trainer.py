"""Precision by device, bounds, and refused options with what to set instead."""

import logging

import pytest
import torch
from tiny_training import SIZE, Letters, Recorder, Rows, fit, tiny_model
from transformers import BertConfig, LlamaConfig

from warmstart import EncoderDecoderConfig, EncoderDecoderModel
from warmstart.config.precision import cpu_computes_bf16, resolve_precision
from warmstart.config.training import OptimSettings, TrainerSettings
from warmstart.errors import UserError
from warmstart.training.callbacks.checkpoints import SampleTable
from warmstart.training.trainer import build_trainer, check_validations

CPU = {"accelerator": "cpu", "progress_bar": False}


def built(run_dir, callbacks=(), **settings):
    return build_trainer(TrainerSettings(**(CPU | settings)), run_dir, [], list(callbacks))


def test_auto_precision_is_bf16_only_if_the_device_supports_it_natively():
    assert resolve_precision("auto", "cpu") == ("bf16-mixed" if cpu_computes_bf16() else "32-true")
    assert resolve_precision("16-mixed", "cpu") == "16-mixed"
    assert resolve_precision("auto", "mps") == "32-true"
    on_gpu = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    assert resolve_precision("auto", "gpu") == ("bf16-mixed" if on_gpu else "32-true")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"precision": "16-mixed"}, "16-mixed was requested, but Lightning uses bf16-mixed on this device"),
        ({"extra": {"no_such_option": 1}}, "no_such_option"),
        ({"extra": {"self": 1}}, "has no argument 'self'"),
        ({"extra": {"accumulate_grad_batches": 4}}, "trainer.accumulate instead"),
        ({"extra": {"limit_train_batches": 0.5}}, "data.limit_train .* instead of trainer.extra.limit_train_batches"),
        ({"extra": {"overfit_batches": 1}}, "data.limit_train .* instead of trainer.extra.overfit_batches"),
        ({"extra": {"fast_dev_run": True}}, "debug=tiny .* instead of trainer.extra.fast_dev_run"),
        ({"extra": {"gradient_clip_algorithm": "value"}}, "trainer.clip_norm .*only clipped by norm.* instead"),
        ({"validations_per_epoch": 0}, "trainer.validations_per_epoch=0"),
        ({"accumulate": 0}, "trainer.accumulate=0"),
    ],
)
def test_wrong_options_are_named(settings, said, tmp_path):
    with pytest.raises(UserError, match=said):
        built(tmp_path, **settings)


def test_more_validations_than_batches_are_refused_with_both_numbers():
    check_validations(TrainerSettings(validations_per_epoch=4), 4, 1)
    with pytest.raises(UserError, match=r"validations_per_epoch=5 .* has 4 batches.*at most 4"):
        check_validations(TrainerSettings(validations_per_epoch=5), 4, 1)
    check_validations(TrainerSettings(validations_per_epoch=3, accumulate=2), 5, 1)
    with pytest.raises(UserError, match=r"validations_per_epoch=4 .* has 5 batches.* 3 optimizer steps.*at most 3"):
        check_validations(TrainerSettings(validations_per_epoch=4, accumulate=2), 5, 1)


def test_fewer_validation_examples_than_devices_are_refused_with_both_numbers():
    four = {"devices": 2, "nodes": 2}
    check_validations(TrainerSettings(**four), 4, 4)
    check_validations(TrainerSettings(**four, extra={"limit_val_batches": 0}), 4, 0)
    with pytest.raises(UserError, match=r"4 devices .* has 3 examples.*fewer devices"):
        check_validations(TrainerSettings(**four), 4, 3)


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a GPU that is not there")
def test_a_missing_device_is_reported_with_a_remedy(tmp_path):
    with pytest.raises(UserError, match="Set trainer"):
        built(tmp_path, accelerator="gpu")


def test_extra_reaches_the_trainer_and_adds_to_lists(tmp_path):
    table = SampleTable(tmp_path, rows=2)
    trainer = built(tmp_path, [table], extra={"limit_val_batches": 2, "callbacks": [nothing()]})
    assert trainer.limit_val_batches == 2
    assert [c for c in trainer.callbacks if isinstance(c, SampleTable)] == [table]
    assert any(type(c).__name__ == "Nothing" for c in trainer.callbacks)


def nothing():
    from lightning.pytorch.callbacks import Callback

    class Nothing(Callback):
        pass

    return Nothing()


def test_steps_and_epochs_bound_the_fit_whichever_comes_first(tmp_path):
    assert fit(tmp_path / "a", 2, 1, max_steps=3, max_epochs=5)[1].global_step == 3
    assert fit(tmp_path / "b", 2, 1, max_steps=30, max_epochs=1)[1].global_step == 4


def test_bf16_true_leaves_rotary_frequencies_exact(tmp_path):
    ids = {"decoder_start_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    model = EncoderDecoderModel(EncoderDecoderConfig(encoder=BertConfig(**SIZE), decoder=LlamaConfig(**SIZE), **ids))
    frequencies = model.decoder.model.rotary_emb.inv_freq.clone()
    module = Recorder(model, Letters(), OptimSettings(warmup_steps=0), {}, total_steps=1, hparams={}, log_every=1)
    fit(tmp_path, 2, 1, module=module, precision="bf16-true", max_steps=1)
    assert model.decoder.lm_head.weight.dtype == torch.bfloat16
    assert torch.equal(model.decoder.model.rotary_emb.inv_freq, frequencies)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true", "64-true"])
def test_every_precision_of_a_cpu_trains_with_clipping_and_the_fused_optimizer(precision, tmp_path):
    log = Rows()
    rates = OptimSettings(encoder_rate=3e-3, decoder_rate=3e-3, new_rate=3e-3, warmup_steps=0)
    module = Recorder(tiny_model(), Letters(), rates, {}, total_steps=16, hparams={}, log_every=1)
    chosen = {"precision": precision, "clip_norm": 0.5, "max_epochs": 8}
    module, trainer = fit(tmp_path, 2, 2, module=module, loggers=[log], **chosen)
    assert trainer.optimizers[0].defaults["fused"]
    held = {"bf16-true": torch.bfloat16, "64-true": torch.float64}.get(precision, torch.float32)
    assert {p.dtype for p in module.model.parameters()} == {held}
    for gradients in module.gradients:
        norm = torch.nn.utils.get_total_norm([g.double() for g in gradients.values()])
        assert norm <= 0.5 * (1 + 1e-2)
    losses = log.of("train/loss")
    assert len(losses) == 16
    assert losses[-1] < losses[0]


def test_lightning_logs_neither_unused_devices_nor_advertisements(tmp_path, caplog, capfd):
    logging.getLogger("lightning.pytorch").setLevel(logging.INFO)  # as importing Lightning does
    with caplog.at_level(logging.INFO):
        built(tmp_path)
    printed = caplog.text + "".join(capfd.readouterr())
    assert not any(word in printed for word in ("TPU", "GPU", "litlogger"))
