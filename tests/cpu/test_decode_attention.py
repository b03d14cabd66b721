"""Attention of a few queries is torch's attention, for every mask and grouping that a decoder asks for."""

import pytest
import torch
import torch.nn.functional as F
from tiny import OURS, decoder_half, gap, half, source

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
    read[0, :, 0] = False  # a query that may read nothing
    return {"none": None, "bool": read, "added": torch.randn(2, 1, length, 7), "one row": read[:, :, :1]}


@torch.no_grad()
@pytest.mark.parametrize("groups", [4, 2, 1])
@pytest.mark.parametrize("length", [1, 3])
@pytest.mark.parametrize("mask", ["none", "bool", "added", "one row"])
def test_it_reads_what_torch_reads(mask, length, groups):
    query, key, value = drawn(length, groups)
    chosen = masks(length)[mask]
    wanted = F.scaled_dot_product_attention(query, key, value, attn_mask=chosen, enable_gqa=True)
    assert gap(attend(query, key, value, chosen), wanted) < 1e-5
    assert gap(attend(query, key, value, chosen, scaling=0.1), wanted) > 1e-3


@torch.no_grad()
def test_bfloat16_is_near_too():
    given = drawn(dtype=torch.bfloat16)
    exact = F.scaled_dot_product_attention(*(x.double() for x in given))
    assert gap(attend(*given, None), exact) < 0.02


def test_what_it_does_not_serve_goes_to_sdpa():
    query, key, value = drawn()
    head_mask = torch.zeros(2, 4, 3, 7)
    assert not serves(query, key, None)  # gradients are wanted
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
def test_a_decoder_has_it_while_it_generates_and_no_longer(chosen):
    model = OURS.join(half("bert"), decoder_half("gpt2"))
    model.decoder.config._attn_implementation = chosen
    seen = set()
    model.decoder.register_forward_pre_hook(lambda *_: seen.add(model.decoder.config._attn_implementation))
    model.generate(**source(), max_new_tokens=3, num_beams=2)
    assert seen == {"eager" if chosen == "eager" else NAME}
    assert model.decoder.config._attn_implementation == chosen
    with pytest.raises(RuntimeError, match="on purpose"), decode_attention(model.decoder):
        raise RuntimeError("on purpose")
    assert model.decoder.config._attn_implementation == chosen
