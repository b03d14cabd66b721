"""Weights are cast and restored; frequencies of rotary positions are never cast."""

import pytest
import torch
from tiny import IDS, OURS, small_config, small_decoder_config, source

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
