"""Sequences that share a source give the results of repeated sources, and the source is stored once."""

import logging

import pytest
import torch
from test_probes import DECODERS
from tiny import OURS, gap, small_config, small_decoder_config, source, target

from warmstart.model.generation.source_cache import SourceCache, mask_of_sources

BEAMS = 2


@pytest.fixture(scope="module", params=DECODERS)
def model(request):
    torch.manual_seed(0)
    return OURS.join(small_config("bert"), small_decoder_config(request.param, **DECODERS[request.param]))


def repeated():
    """Return target ids (R, T), two different ones per source, and the source's mask (R, S)."""
    ids = target().clamp(min=5).repeat_interleave(BEAMS, dim=0)
    ids[1::BEAMS] = ids[1::BEAMS].flip(1)
    return ids, source()["attention_mask"].repeat_interleave(BEAMS, dim=0)


def test_shared_states_give_the_logits_of_repeated_states(model):
    ids, mask = repeated()
    with torch.no_grad():
        states = model.encoder(**source())[0]
        given = {"attention_mask": mask, "decoder_input_ids": ids}
        copied = model(encoder_outputs=(states.repeat_interleave(BEAMS, 0),), **given)
        shared = model(encoder_outputs=(states,), **given)
    assert gap(shared.logits, copied.logits) < 1e-4


@pytest.mark.parametrize("kind", ["gpt2", "bert", "roberta"])
def test_cross_attentions_are_returned_per_sequence(kind):
    model = OURS.join(small_config("bert"), small_decoder_config(kind))
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


@pytest.mark.parametrize("kind", ["bert", pytest.param("roberta", marks=pytest.mark.slow)])
def test_flex_attention_stores_the_source_per_beam(kind, caplog):
    model = OURS.join(small_config("bert"), small_decoder_config(kind))
    search = {"num_beams": 3, "max_new_tokens": 4, "min_new_tokens": 4}
    wanted = model.generate(**source(), **search)
    model.decoder.set_attn_implementation("flex_attention")
    with caplog.at_level(logging.INFO):
        assert torch.equal(model.generate(**source(), **search), wanted)
    assert "With flex_attention the source's keys and values are stored once per beam" in caplog.text


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_mask_with_batch_size_one_applies_to_all_sources(kind):
    model = OURS.join(small_config("bert"), small_decoder_config(kind))
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


def test_cross_attention_cache_has_one_entry_per_source(model):
    options = {"num_beams": 3, "max_new_tokens": 4, "min_new_tokens": 4, "return_dict_in_generate": True}
    found = model.generate(**source(), **options).past_key_values
    assert [len(layer.keys) for layer in found.cross_attention_cache.layers] == [3, 3]
    assert [len(layer.keys) for layer in found.self_attention_cache.layers] == [9, 9]
    cache = SourceCache()
    keys = torch.randn(2, 1, 3, 4)
    cache.update(keys, keys, 0)
    cache.reorder_cache(torch.tensor([5, 4, 3, 2, 1, 0]))
    assert torch.equal(cache.layers[0].keys, keys)


def test_static_cache_stores_the_source_per_beam():
    model = OURS.join(small_config("bert"), small_decoder_config("gpt2"))
    options = {"num_beams": 3, "max_new_tokens": 5, "min_new_tokens": 5}
    usual = model.generate(**source(), **options)
    assert torch.equal(model.generate(**source(), cache_implementation="static", **options), usual)
    assert torch.equal(model.generate(**source(), **options), usual)


def test_uneven_sharing_of_sources_is_refused():
    model = OURS.join(small_config("bert"), small_decoder_config("gpt2"))
    states = model.encoder(**source())[0]
    with pytest.raises(ValueError, match="4 target sequences cannot share 3 sources"):
        model(encoder_outputs=(states,), decoder_input_ids=torch.full((4, 2), 7))


def test_masks_of_the_sources_are_selected():
    mask = torch.tensor([[1, 0], [1, 1]])
    assert torch.equal(mask_of_sources(mask.repeat_interleave(3, 0), 2), mask)
    assert mask_of_sources(None, 2) is None
