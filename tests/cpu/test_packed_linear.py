"""Prepacked weights give the results of the original ones, are freed after a generation, and are never outdated."""

import gc
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tiny import OURS, gap, small_config, small_decoder_config, source
from transformers.pytorch_utils import Conv1D

from warmstart.compat.torch import can_prepack
from warmstart.cpu import packed_linear as packed_module
from warmstart.cpu.packed_linear import prepacked_weights

pytestmark = pytest.mark.skipif(not can_prepack(), reason="this torch was built without oneDNN")
SEARCH = {"num_beams": 3, "max_new_tokens": 6, "min_new_tokens": 6}


def pair(kind="gpt2", dtype=torch.float32):
    torch.manual_seed(0)
    return OURS.join(small_config("bert"), small_decoder_config(kind)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_results_of_every_layer_do_not_change(kind, dtype):
    decoder = pair(kind, dtype).decoder
    layers = {name: m for name, m in decoder.named_modules() if type(m) in (torch.nn.Linear, Conv1D)}
    assert len(layers) > 8
    with torch.no_grad(), prepacked_weights(decoder) as packed:
        for name, layer in layers.items():
            width = layer.weight.shape[0 if isinstance(layer, Conv1D) else 1]
            given = torch.randn(1, 4, width, dtype=dtype)
            plain = layer(given)  # not prepacked yet: this may be the only call
            assert name not in packed
            kept = layer(given.transpose(0, 1)).transpose(0, 1)
            assert name in packed
            assert kept.shape == plain.shape
            assert kept.dtype is dtype
            assert gap(kept, plain) <= (2e-5 if dtype is torch.float32 else 0.1) * max(1, float(plain.abs().max()))


def test_generation_restores_the_model_and_uses_new_weights():
    model = pair()
    first = model.generate(**source(), **SEARCH)
    assert all("forward" not in vars(module) for module in model.decoder.modules())
    with torch.no_grad():
        model.decoder.lm_head.weight.copy_(model.decoder.lm_head.weight.flip(0))
    second = model.generate(**source(), **SEARCH)
    assert not torch.equal(first, second)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed_module, "can_prepack", lambda: False)
        assert torch.equal(model.generate(**source(), **SEARCH), second)


def test_error_restores_the_model():
    decoder = pair().decoder
    with pytest.raises(RuntimeError, match="on purpose"), prepacked_weights(decoder):
        raise RuntimeError("on purpose")
    assert all("forward" not in vars(module) for module in decoder.modules())


def prepacked_layers(decoder, rows=4, **context):
    with prepacked_weights(decoder) as packed:
        for _ in range(3):
            decoder.lm_head(torch.randn(rows, 32, **context))
    return list(packed)


def test_unsuitable_calls_do_not_prepack(monkeypatch):
    decoder = pair().decoder
    assert prepacked_layers(decoder) == []  # gradients are enabled
    with torch.no_grad():
        assert prepacked_layers(decoder) == ["lm_head"]
        assert prepacked_layers(decoder, rows=1) == prepacked_layers(decoder, rows=1000) == []
        with torch.autocast("cpu", torch.bfloat16):
            assert prepacked_layers(decoder) == []
        assert prepacked_layers(pair(dtype=torch.float64).decoder, dtype=torch.float64) == []
        monkeypatch.setattr(packed_module, "LARGEST", 100)
        assert prepacked_layers(decoder) == []


def test_first_token_prepacks():
    decoder = pair().decoder
    with torch.no_grad(), prepacked_weights(decoder) as packed:
        decoder.lm_head(torch.randn(4, 1, 32))
    assert list(packed) == ["lm_head"]


def test_source_projections_are_not_prepacked():
    model = pair()
    with prepacked_weights(model.decoder) as packed:
        model.generate(**source(), **SEARCH)
    assert "lm_head" in packed
    assert "transformer.h.0.crossattention.q_attn" in packed
    assert "transformer.h.0.crossattention.c_attn" not in packed


def test_concurrent_calls_share_weights_and_the_last_one_frees_them():
    decoder = pair().decoder

    def prepacked():
        with torch.no_grad(), prepacked_weights(decoder) as packed:
            decoder.lm_head(torch.randn(4, 1, 32))
            return packed["lm_head"]

    with torch.no_grad(), prepacked_weights(decoder) as packed:
        decoder.lm_head(torch.randn(4, 1, 32))
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(prepacked).result() is packed["lm_head"]
        packed.clear()
    gc.collect()
    assert len(packed_module._shared) == 0
