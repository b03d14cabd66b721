"""Decode-step attention equals torch's attention for all masks and head groups of decoders."""

import pytest
import torch
import torch.nn.functional as F
from tiny import OURS, gap, small_config, small_decoder_config, source

from warmstart.cpu.attention import NAME as LEAN_DROPOUT
from warmstart.cpu.decode_attention import (
    MOST_QUERIES,
    NAME,
    attend,
    decode_attention,
    decode_attention_forward,
    serves,
)


def drawn(length=3, groups=4, dtype=torch.float32):
    torch.manual_seed(0)
    query = torch.randn(2, 4, length, 8, dtype=dtype)
    return query, torch.randn(2, groups, 7, 8, dtype=dtype), torch.randn(2, groups, 7, 8, dtype=dtype)


def masks(length):
    read = torch.rand(2, 1, length, 7) > 0.4
    read[0, :, 0] = False  # no key is visible to this query
    return {"none": None, "bool": read, "added": torch.randn(2, 1, length, 7), "one row": read[:, :, :1]}


@torch.no_grad()
@pytest.mark.parametrize("groups", [4, 2, 1])
@pytest.mark.parametrize("length", [1, 3])
@pytest.mark.parametrize("mask", ["none", "bool", "added", "one row"])
def test_attention_equals_torch(mask, length, groups):
    query, key, value = drawn(length, groups)
    chosen = masks(length)[mask]
    wanted = F.scaled_dot_product_attention(query, key, value, attn_mask=chosen, enable_gqa=True)
    assert gap(attend(query, key, value, chosen), wanted) < 1e-5
    assert gap(attend(query, key, value, chosen, scaling=0.1), wanted) > 1e-3


@torch.no_grad()
def test_bfloat16_attention_is_close_to_torch():
    given = drawn(dtype=torch.bfloat16)
    exact = F.scaled_dot_product_attention(*(x.double() for x in given))
    assert gap(attend(*given, None), exact) < 0.02


def test_unsupported_calls_use_sdpa():
    query, key, value = drawn()
    head_mask = torch.zeros(2, 4, 3, 7)
    assert not serves(query, key, None)  # gradients are enabled
    with torch.no_grad():
        assert serves(query, key, None)
        assert not serves(query, key, head_mask)
        assert not serves(drawn(MOST_QUERIES + 1)[0], key, None)
        module = torch.nn.Module()
        module.is_causal = True
        keys = key[:, :, :3], value[:, :, :3]
        read, _ = decode_attention_forward(module, query, *keys, None)
        causal = F.scaled_dot_product_attention(query, *keys, is_causal=True)
        assert gap(read.transpose(1, 2), causal) < 1e-6


@pytest.mark.parametrize("chosen", ["sdpa", LEAN_DROPOUT, "eager"])
def test_decoder_uses_it_only_during_generation(chosen):
    model = OURS.join(small_config("bert"), small_decoder_config("gpt2"))
    model.decoder.config._attn_implementation = chosen
    seen = set()
    model.decoder.register_forward_pre_hook(lambda *_: seen.add(model.decoder.config._attn_implementation))
    model.generate(**source(), max_new_tokens=3, num_beams=2)
    assert seen == {"eager" if chosen == "eager" else NAME}
    assert model.decoder.config._attn_implementation == chosen
    with pytest.raises(RuntimeError, match="on purpose"), decode_attention(model.decoder):
        raise RuntimeError("on purpose")
    assert model.decoder.config._attn_implementation == chosen
