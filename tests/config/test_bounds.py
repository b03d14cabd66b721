"""Invalid numbers are reported before anything is downloaded; an out-of-memory error names the option to lower."""

import pytest
import torch

from warmstart.runs.explain import explain
from warmstart.tasks.check import faults

WRONG = {
    **dict.fromkeys(("optim.encoder_rate", "optim.new_rate", "optim.gate_rate"), ("-1e-5", "nan", "50", "inf")),
    "optim.weight_decay": ("-0.1", "nan"),
    "optim.warmup_fraction": ("1.5", "-0.1"),
    "optim.warmup_steps": ("-1",),
    "optim.betas": ("[0.9]", "[0.9,1.0]", "[-0.1,0.9]"),
    "optim.label_smoothing": ("1.0", "-0.1", "nan"),
    "bridge.dropout": ("1.0", "-0.5"),
    "bridge.every_n_layers": ("0",),
    "bridge.warmup_steps": ("-1",),
    "bridge.lora_rank": ("0",),
    "seed": ("-1", "4294967296"),
    "trainer.max_epochs": ("0", "-1"),
    "trainer.max_steps": ("0", "-2"),
    "trainer.max_minutes": ("0", "-1", "1e308", "inf"),
    "trainer.timeout_minutes": ("0", "nan", "inf"),
    "trainer.devices": ("0",),
    "trainer.keep_last": ("0",),
    "trainer.save_every": ("0",),
    "trainer.skip_limit": ("-1",),
    "trainer.monitor_mode": ("best", "max"),
    "trainer.monitor": ("validation/rouge1", "validation/rouge9"),
    "data.batch.max_tokens": ("0",),
    "data.limit_train": ("0", "-5"),
    "data.baselines": ("[copulla]", "[lead,nearest,bm25]"),
    "data.evaluation_max_tokens": ("0",),
    "data.max_source_length": ("1", "513"),
    "data.max_target_length": ("0", "2000"),
    "generation.num_beams": ("0", "99999"),
    "generation.max_new_tokens": ("0", "1025"),
    "generation.min_new_tokens": ("-1", "143"),
    "generation.temperature": ("0", "nan", "1e-320", "1e308", "inf"),
    "generation.top_p": ("0", "1.1"),
    "generation.length_penalty": ("nan", "inf", "1e308", "-1e308"),
    "+encoder.architecture.pad_token_id": ("30522", "-7"),
    "+decoder.architecture.eos_token_id": ("[3,50257]",),
    "evaluation.bootstrap_samples": ("0",),
    "evaluation.control_samples": ("-1",),
}
CASES = [f"{key}={value}" for key, values in WRONG.items() for value in values]


@pytest.mark.parametrize("word", CASES)
def test_an_invalid_number_is_reported_with_its_option(word, settings_of):
    found = faults(settings_of(word))
    assert any(word.lstrip("+").partition("=")[0] in message for message in found), found


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("optim.encoder_rate=-1", "optim.encoder_rate=-1.0 is invalid. Set a number that is from 0 to 1."),
        ("trainer.max_steps=0", "trainer.max_steps=0 is invalid. Set a number that is at least 1, or -1 for no limit."),
        ("trainer.monitor_mode=x", "trainer.monitor_mode=x is invalid. Set a value that is one of min, max."),
    ],
)
def test_the_message_about_an_invalid_value_states_the_bounds(word, message, settings_of):
    assert message in faults(settings_of(word))


def test_an_unknown_item_of_a_list_is_named_with_the_nearest(settings_of):
    (fault,) = faults(settings_of("data.baselines=[lead,copulla]"))
    assert fault.startswith("data.baselines=['lead', 'copulla'] is invalid. Set a value that is one of lead, copula, ")
    assert fault.endswith(" Did you mean copula?")
    assert faults(settings_of("data.baselines=[source,nearest]")) == faults(settings_of("data.baselines=[]")) == []


def test_valid_numbers_are_not_reported(settings_of):
    assert faults(settings_of()) == []
    edges = [
        "optim.encoder_rate=0",
        "optim.label_smoothing=0.99",
        "trainer.clip_norm=0",
        "generation.min_new_tokens=142",
    ]
    edges += [
        "generation.max_new_tokens=142",
        "trainer.monitor=validation/rouge2",
        "trainer.monitor_mode=max",
        "seed=0",
    ]
    assert faults(settings_of(*edges)) == []


def test_a_warm_up_as_long_as_the_fit_is_reported(settings_of):
    assert "never reach their peak" in faults(settings_of("optim.warmup_steps=100", "trainer.max_steps=100"))[0]
    assert faults(settings_of("optim.warmup_steps=99", "trainer.max_steps=100")) == []


def test_a_rouge_monitor_needs_validation_summaries(settings_of):
    words = ["trainer.monitor=validation/rouge1", "trainer.monitor_mode=max", "trainer.validation_samples=0"]
    assert "needs summaries, but trainer.validation_samples=0" in faults(settings_of(*words))[0]


def test_an_out_of_memory_error_names_the_option_to_lower():
    with pytest.raises(RuntimeError) as failure:
        torch.empty(2**58)
    for error in (failure.value, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), MemoryError()):
        assert "data.batch.max_tokens" in explain(error)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trainer.monitor=validation/chrf", "trainer.monitor_mode=max"], "Set evaluation.metrics=[rouge,chrf]."),
        (["evaluation.metrics=[fragments]"], "nothing can be compared"),
        (["evaluation.metrics=[rouge,bertscore]"], "Set evaluation.bertscore_model to a folder or a hub id."),
        (["evaluation.metrics=[rouge,chrF]"], "Did you mean chrf?"),
        (["data.language=German"], "data.language=German is invalid. Set an ISO 639 code"),
    ],
)
def test_metrics_that_cannot_be_used_are_faults(words, message, settings_of):
    assert any(message in fault for fault in faults(settings_of(*words)))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trainer.ema_decay=1"], "trainer.ema_decay=1.0 is invalid. Set a number that is from 0 to below 1."),
        (["trainer.ema_decay=0.9", "trainer.precision=bf16-true"], "Set trainer.precision=bf16-mixed."),
        (["trainer.ema_decay=0.9", "trainer.strategy=fsdp"], "trainer.ema_decay=0.9 averages whole weights, which"),
        (["trainer.average_best=3", "trainer.strategy=deepspeed"], "trainer.average_best=3 averages whole weights"),
    ],
)
def test_averages_that_cannot_be_computed_are_faults(words, message, settings_of):
    assert any(message in fault for fault in faults(settings_of(*words)))


def test_averages_are_computed_on_one_device_and_with_ddp(settings_of):
    for strategy in ("auto", "ddp", "ddp_find_unused_parameters_true"):
        words = ("trainer.ema_decay=0.9", "trainer.average_best=3", f"trainer.strategy={strategy}")
        assert faults(settings_of(*words)) == faults(settings_of())


def test_any_score_of_the_metrics_can_choose_the_checkpoint(settings_of):
    words = ["evaluation.metrics=[chrf,ter,fragments]", "trainer.monitor=validation/ter"]
    assert faults(settings_of(*words)) == []
    (fault,) = faults(settings_of(*words, "trainer.monitor_mode=max"))
    assert "worst checkpoint" in fault
    for mode in ("min", "max"):  # neither more nor less of it is better
        words[1:] = ["trainer.monitor=validation/density", f"trainer.monitor_mode={mode}"]
        assert faults(settings_of(*words)) == []
