"""Weights are cast and restored; what transformers keeps in float32 in 16 bits is not cast."""

import pytest
import torch
from tiny import IDS, OURS, small_config, small_decoder_config, source
from transformers import AutoModelForCausalLM

from warmstart.compatibility.tiny_configs import tiny_config
from warmstart.model.dtypes import computing_in, to_dtype


def pair(kind):
    torch.manual_seed(0)
    return OURS.model(
        OURS.config.from_encoder_decoder_configs(small_config("bert"), small_decoder_config(kind), **IDS)
    ).eval()


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma3_text", "xglm"])
def test_model_computes_in_bfloat16_and_is_restored(kind):
    model = pair(kind)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    search = {"max_new_tokens": 6, "min_new_tokens": 6, "num_beams": 2}
    ids = model.generate(**source(), **search)
    with computing_in(model, torch.bfloat16):
        assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
        logits = model(**source(), decoder_input_ids=ids).logits
        assert logits.dtype == torch.bfloat16
        assert model.generate(**source(), **search).shape == ids.shape
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    exact = model(**source(), decoder_input_ids=ids).logits
    assert 0 < (logits - exact).abs().max() / exact.abs().max() < 0.1
    assert torch.equal(model.generate(**source(), **search), ids)


def test_values_are_restored_after_an_error():
    model = pair("gpt2")
    with pytest.raises(KeyError), computing_in(model, torch.bfloat16):
        raise KeyError
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_tied_weights_stay_tied():
    model = pair("gpt2")
    to_dtype(model, torch.bfloat16)
    assert model.decoder.lm_head.weight is model.decoder.transformer.wte.weight


@pytest.mark.parametrize("kind", ["llama", "gpt_neox"])
def test_rotary_frequencies_are_not_rounded(kind):
    model = pair(kind)
    frequencies = {name: value.clone() for name, value in model.named_buffers() if "inv_freq" in name}
    assert frequencies
    to_dtype(model, torch.bfloat16)
    assert all(torch.equal(value, frequencies[name]) for name, value in model.named_buffers() if name in frequencies)


# Routers of experts, decay of linear attention, tables of positions, and what a class creates in float32 unnamed
@pytest.mark.parametrize(
    "kind",
    [
        *("axk1", "bailing_hybrid", "codegen", "ctrl", "ernie4_5_moe", "flint", "gptj", "hunyuan_v1_moe", "hy_v4"),
        *("inkling2_text", "kimi_linear", "mamba2", "nemotron_h", "olmo_hybrid", "zamba", "zaya", "xglm", "gemma"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_cast_model_has_the_dtypes_and_values_of_one_loaded_in_that_dtype(kind, dtype, tmp_path):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config(kind))
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype)
    to_dtype(model, dtype)
    expected = dict(loaded.named_parameters()) | dict(loaded.named_buffers())
    found = dict(model.named_parameters()) | dict(model.named_buffers())
    assert {name: one.dtype for name, one in found.items()} == {name: one.dtype for name, one in expected.items()}
    assert [name for name, one in found.items() if not torch.equal(one, expected[name])] == []


def test_a_grafted_decoder_keeps_its_routers_in_float32(tmp_path):
    torch.manual_seed(0)
    model = OURS.model(
        OURS.config.from_encoder_decoder_configs(small_config("bert"), tiny_config("axk1"), **IDS)
    ).eval()
    model.save_pretrained(tmp_path)
    loaded = OURS.model.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
    inputs = source() | {"decoder_input_ids": torch.tensor([[5, 6, 7, 8]] * 3)}
    with computing_in(model, torch.bfloat16):
        in_float32 = {name for name, one in model.named_parameters() if one.dtype == torch.float32}
        assert {name.rpartition("gate.")[2] for name in in_float32} == {"weight"}
        assert torch.equal(model(**inputs).logits, loaded(**inputs).logits)
        model.generate(**source(), max_new_tokens=4, num_beams=2)
    assert {one.dtype for one in model.parameters()} == {torch.float32}
