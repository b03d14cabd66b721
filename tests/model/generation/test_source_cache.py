"""Rows that share a source give what they give with a copy of it each, and nothing of the source is held twice."""

import logging

import pytest
import torch
from test_probes import DECODERS
from tiny import OURS, decoder_half, gap, half, source, target

from warmstart.model.generation.source_cache import SourceCache, mask_of_sources

BEAMS = 2


@pytest.fixture(scope="module", params=DECODERS)
def model(request):
    torch.manual_seed(0)
    return OURS.join(half("bert"), decoder_half(request.param, **DECODERS[request.param]))


def repeated():
    """Target ids (R, T), two different rows for each source, and the source's mask (R, S)."""
    ids = target().clamp(min=5).repeat_interleave(BEAMS, dim=0)
    ids[1::BEAMS] = ids[1::BEAMS].flip(1)
    return ids, source()["attention_mask"].repeat_interleave(BEAMS, dim=0)


def test_shared_states_give_the_logits_of_repeated_ones(model):
    ids, mask = repeated()
    with torch.no_grad():
        states = model.encoder(**source())[0]
        given = {"attention_mask": mask, "decoder_input_ids": ids}
        copied = model(encoder_outputs=(states.repeat_interleave(BEAMS, 0),), **given)
        shared = model(encoder_outputs=(states,), **given)
    assert gap(shared.logits, copied.logits) < 1e-4


@pytest.mark.parametrize("kind", ["gpt2", "bert", "roberta"])
def test_cross_attentions_come_back_by_row(kind):
    model = OURS.join(half("bert"), decoder_half(kind))
    model.set_attn_implementation("eager")
    ids, mask = repeated()
    states = model.encoder(**source())[0]
    given = {"attention_mask": mask, "decoder_input_ids": ids, "output_attentions": True}
    shared = model(encoder_outputs=(states,), **given)
    copied = model(encoder_outputs=(states.repeat_interleave(BEAMS, 0),), **given)
    for mine, theirs in zip(shared.cross_attentions, copied.cross_attentions, strict=True):
        assert mine.shape == theirs.shape
        assert gap(mine, theirs) < 1e-5
    search = {"num_beams": BEAMS, "max_new_tokens": 2, "return_dict_in_generate": True, "output_attentions": True}
    (first, *_) = model.generate(**source(), **search).cross_attentions
    assert first[0].shape[0] == BEAMS * len(states)


@pytest.mark.parametrize("kind", ["roberta", "bert"])
def test_flex_attention_has_a_row_for_each_beam(kind, caplog):
    model = OURS.join(half("bert"), decoder_half(kind))
    search = {"num_beams": 3, "max_new_tokens": 4, "min_new_tokens": 4}
    wanted = model.generate(**source(), **search)
    model.decoder.set_attn_implementation("flex_attention")
    with caplog.at_level(logging.INFO):
        assert torch.equal(model.generate(**source(), **search), wanted)
    assert "flex_attention takes a row for each beam" in caplog.text


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_a_mask_of_one_row_is_for_all_sources(kind):
    model = OURS.join(half("bert"), decoder_half(kind))
    given = source()
    rows = len(given["input_ids"])
    one = torch.ones_like(given["input_ids"][:1])
    one[:, -2:] = 0
    target = torch.full((rows, 3), 4)
    found, wanted = (
        model(given["input_ids"], attention_mask=mask, decoder_input_ids=target).logits
        for mask in (one, one.repeat(rows, 1))
    )
    assert torch.equal(found, wanted)
    encoded = model.encoder(given["input_ids"], attention_mask=one.repeat(rows, 1))[0]
    assert torch.equal(model(encoder_outputs=(encoded,), attention_mask=one, decoder_input_ids=target).logits, wanted)
    found, wanted = (
        model.generate(given["input_ids"], attention_mask=mask, num_beams=2, max_new_tokens=4)
        for mask in (one, one.repeat(rows, 1))
    )
    assert torch.equal(found, wanted)


def test_the_cache_holds_a_row_for_each_source_and_beams_move_none(model):
    options = {"num_beams": 3, "max_new_tokens": 4, "min_new_tokens": 4, "return_dict_in_generate": True}
    found = model.generate(**source(), **options).past_key_values
    assert [len(layer.keys) for layer in found.cross_attention_cache.layers] == [3, 3]
    assert [len(layer.keys) for layer in found.self_attention_cache.layers] == [9, 9]
    cache = SourceCache()
    keys = torch.randn(2, 1, 3, 4)
    cache.update(keys, keys, 0)
    cache.reorder_cache(torch.tensor([5, 4, 3, 2, 1, 0]))
    assert torch.equal(cache.layers[0].keys, keys)


def test_a_static_cache_falls_back_to_a_row_for_each_beam():
    model = OURS.join(half("bert"), decoder_half("gpt2"))
    options = {"num_beams": 3, "max_new_tokens": 5, "min_new_tokens": 5}
    usual = model.generate(**source(), **options)
    assert torch.equal(model.generate(**source(), cache_implementation="static", **options), usual)
    assert torch.equal(model.generate(**source(), **options), usual)


def test_rows_that_cannot_be_shared_evenly_are_said():
    model = OURS.join(half("bert"), decoder_half("gpt2"))
    states = model.encoder(**source())[0]
    with pytest.raises(ValueError, match="4 target rows cannot share 3 sources"):
        model(encoder_outputs=(states,), decoder_input_ids=torch.full((4, 2), 7))


def test_the_mask_of_each_source():
    mask = torch.tensor([[1, 0], [1, 1]])
    assert torch.equal(mask_of_sources(mask.repeat_interleave(3, 0), 2), mask)
    assert mask_of_sources(None, 2) is None
