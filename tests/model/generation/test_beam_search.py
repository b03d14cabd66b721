"""Decided sources leave the batch, and the generated ids equal those of transformers' own search."""

import pytest
import torch
from test_grafting import build
from tiny import OURS, UPSTREAM, small_config, small_decoder_config, source

from warmstart.model.generation import beam_search


def native(lib=OURS):
    torch.manual_seed(0)
    model = lib.join(small_config("bert"), small_decoder_config("gpt2"), pad_token_id=3)
    with torch.no_grad():  # so that some sources end early and others late
        model.decoder.lm_head.weight = torch.nn.Parameter(model.decoder.lm_head.weight.clone())
        model.decoder.lm_head.weight[2] *= -3
    return model


def grafted():
    model = build("llama", every_n_layers=1, opened=2.0)
    with torch.no_grad():
        for name, parameter in model.cross_attention.named_parameters():
            if name.endswith("proj.weight"):  # otherwise the sources hardly make a difference
                torch.nn.init.normal_(parameter, std=0.5)
        model.decoder.lm_head.weight[2] = 0.5 * torch.randn(32)
    return model


def ids_and_batch_sizes(model, **options):
    """Return the generated ids, and the number of sequences at each step of the decoder."""
    sizes = []
    handle = model.decoder.register_forward_hook(lambda module, args, output: sizes.append(len(output.logits)))
    try:
        return model.generate(**source(batch_size=6), max_new_tokens=14, **options), sizes
    finally:
        handle.remove()


SEARCHES = {
    "plain": {"num_beams": 3},
    "early": {"num_beams": 3, "early_stopping": True},
    "never": {"num_beams": 3, "early_stopping": "never", "length_penalty": 1.5},
    "short": {"num_beams": 2, "length_penalty": -1.0, "num_return_sequences": 2},
    "summary": {"num_beams": 4, "min_new_tokens": 3, "no_repeat_ngram_size": 2, "early_stopping": True},
    "forced": {"num_beams": 3, "forced_eos_token_id": 2, "length_penalty": 0.0},
    "two-ends": {"num_beams": 3, "eos_token_id": [2, 7], "early_stopping": True},
    "returned": {"num_beams": 4, "num_return_sequences": 3, "length_penalty": 2.0},
}


@pytest.mark.parametrize("make", [native, grafted])
@pytest.mark.parametrize("options", SEARCHES.values(), ids=SEARCHES)
def test_ids_equal_transformers_search(make, options, monkeypatch):
    model = make()
    found, sizes = ids_and_batch_sizes(model, **options)
    monkeypatch.setattr(beam_search, "can_drop", lambda *_: False)
    wanted, sizes_before = ids_and_batch_sizes(model, **options)
    assert torch.equal(found, wanted)
    assert set(sizes_before) == {6 * options["num_beams"]}
    assert sorted(sizes, reverse=True) == sizes
    assert sum(sizes) <= sum(sizes_before)


def test_ids_equal_transformers_class():
    ours, theirs = native(), native(UPSTREAM)
    theirs.load_state_dict(ours.state_dict(), strict=False)
    for options in SEARCHES.values():
        given = source(batch_size=6) | {"max_new_tokens": 14} | options
        assert torch.equal(ours.generate(**given), theirs.generate(**given))


@pytest.mark.parametrize("make", [native, grafted])
def test_decided_sources_leave_the_batch(make):
    _, sizes = ids_and_batch_sizes(make(), num_beams=3, early_stopping=True)
    assert sizes[0] == 18
    assert sizes[-1] < 18


def test_caches_and_sources_shrink_with_the_batch():
    model, seen = native(), []

    def watch(module, args, kwargs, output):
        cache = output.past_key_values
        seen.append(
            (
                len(cache.self_attention_cache.layers[0].keys) // 3,
                len(cache.cross_attention_cache.layers[0].keys),
                len(kwargs["encoder_hidden_states"]),
            )
        )

    model.decoder.register_forward_hook(watch, with_kwargs=True)
    model.generate(**source(batch_size=6), max_new_tokens=14, num_beams=3, early_stopping=True)
    assert all(len(set(counts)) == 1 for counts in seen)
    assert seen[-1][0] < seen[0][0] == 6


@pytest.mark.parametrize(
    "options",
    [
        {"do_sample": True},
        {"repetition_penalty": 1.2},
        {"return_dict_in_generate": True, "output_scores": True},
        {"use_cache": False},
        {"cache_implementation": "static"},
    ],
    ids=["sampling", "other-processor", "more-than-ids", "no-cache", "static-cache"],
)
def test_other_searches_keep_every_source(options):
    _, sizes = ids_and_batch_sizes(native(), num_beams=3, early_stopping=True, **options)
    assert set(sizes) == {18}


def test_unsupported_search_is_refused():
    with pytest.raises(ValueError, match="contrastive"):
        grafted().generate(**source(), penalty_alpha=0.5, top_k=4, max_new_tokens=3, trust_remote_code=False)


@pytest.mark.parametrize("beams", [1, 3])
def test_transition_scores_equal_transformers(beams):
    pairs = [lib.join(small_config("bert"), small_decoder_config("gpt2"), pad_token_id=3) for lib in (OURS, UPSTREAM)]
    pairs[1].load_state_dict(pairs[0].state_dict(), strict=False)
    search = {"num_beams": beams, "max_new_tokens": 4, "return_dict_in_generate": True, "output_scores": True}
    scores = []
    for model in pairs:
        found = model.generate(**source(), **search)
        beams_of = (found.beam_indices,) if beams > 1 else ()
        scores.append(model.compute_transition_scores(found.sequences, found.scores, *beams_of))
    torch.testing.assert_close(*scores)
