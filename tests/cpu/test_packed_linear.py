"""A layout that is kept gives what the matrix gives, lives as long as one generation, and follows the weights."""

import gc
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tiny import OURS, decoder_half, gap, half, source
from transformers.pytorch_utils import Conv1D

from warmstart.compat.torch import can_prepack
from warmstart.cpu import packed_linear as packed_module
from warmstart.cpu.packed_linear import prepacked_weights

pytestmark = pytest.mark.skipif(not can_prepack(), reason="this torch was built without oneDNN")
SEARCH = {"num_beams": 3, "max_new_tokens": 6, "min_new_tokens": 6}


def pair(kind="gpt2", dtype=torch.float32):
    torch.manual_seed(0)
    return OURS.join(half("bert"), decoder_half(kind)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_every_matrix_gives_what_it_gave(kind, dtype):
    decoder = pair(kind, dtype).decoder
    layers = {name: m for name, m in decoder.named_modules() if type(m) in (torch.nn.Linear, Conv1D)}
    assert len(layers) > 8
    with torch.no_grad(), prepacked_weights(decoder) as packed:
        for name, layer in layers.items():
            width = layer.weight.shape[0 if isinstance(layer, Conv1D) else 1]
            given = torch.randn(1, 4, width, dtype=dtype)
            plain = layer(given)  # the first call makes no layout where it may be the only one
            assert name not in packed
            kept = layer(given.transpose(0, 1)).transpose(0, 1)
            assert name in packed
            assert kept.shape == plain.shape
            assert kept.dtype is dtype
            assert gap(kept, plain) <= (2e-5 if dtype is torch.float32 else 0.1) * max(1, float(plain.abs().max()))


def test_a_generation_leaves_nothing_behind_and_sees_new_weights():
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


def test_an_error_leaves_nothing_behind():
    decoder = pair().decoder
    with pytest.raises(RuntimeError, match="on purpose"), prepacked_weights(decoder):
        raise RuntimeError("on purpose")
    assert all("forward" not in vars(module) for module in decoder.modules())


def layouts(decoder, rows=4, **context):
    with prepacked_weights(decoder) as packed:
        for _ in range(3):
            decoder.lm_head(torch.randn(rows, 32, **context))
    return list(packed)


def test_where_it_would_not_pay_or_not_hold_no_layout_is_made(monkeypatch):
    decoder = pair().decoder
    assert layouts(decoder) == []  # gradients are wanted
    with torch.no_grad():
        assert layouts(decoder) == ["lm_head"]
        assert layouts(decoder, rows=1) == layouts(decoder, rows=1000) == []
        with torch.autocast("cpu", torch.bfloat16):
            assert layouts(decoder) == []
        assert layouts(pair(dtype=torch.float64).decoder, dtype=torch.float64) == []
        monkeypatch.setattr(packed_module, "LARGEST", 100)
        assert layouts(decoder) == []


def test_a_first_token_makes_a_layout():
    decoder = pair().decoder
    with torch.no_grad(), prepacked_weights(decoder) as packed:
        decoder.lm_head(torch.randn(4, 1, 32))
    assert list(packed) == ["lm_head"]


def test_keys_and_values_of_the_source_get_none():
    model = pair()
    with prepacked_weights(model.decoder) as packed:
        model.generate(**source(), **SEARCH)
    assert "lm_head" in packed
    assert "transformer.h.0.crossattention.q_attn" in packed
    assert "transformer.h.0.crossattention.c_attn" not in packed


def test_calls_share_a_matrix_and_the_last_one_frees_it():
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
