"""Decided sources leave the batch, and the generated ids equal those of transformers' own search."""

import math
from typing import ClassVar

import pytest
import torch
from test_grafting import build
from tiny import OURS, UPSTREAM, small_config, small_decoder_config, source
from transformers import LogitsProcessorList

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


@pytest.mark.parametrize(
    ("kind", "length", "alpha", "divisor"),
    [
        ("transformers", 4, 2.0, 16.0),
        ("transformers", 9, 0.5, 3.0),
        ("gnmt", 1, 0.95, 1.0),  # (5 + 1) / 6 = 1
        ("gnmt", 7, 1.0, 2.0),  # (5 + 7) / 6 = 2
        ("gnmt", 50, 0.95, 8.2054),  # exp(0.95 * ln(55 / 6)) = exp(0.95 * 2.215574)
        ("gnmt", 49, 0.5, 3.0),  # (54 / 6) ** 0.5
    ],
)
def test_length_penalties_by_hand(kind, length, alpha, divisor):
    assert beam_search.LENGTH_PENALTIES[kind](length, alpha) == pytest.approx(divisor, rel=1e-4)


class Scripted:
    """Fixed log-probabilities of the next token after each sequence of generated tokens; id 2 ends a sequence."""

    AFTER: ClassVar = {(): {3: 0.6, 4: 0.4}, (3,): {2: 0.5, 5: 0.5}, (4,): {6: 1.0}, (4, 6): {7: 1.0}}

    def __call__(self, ids, scores):
        for row, sequence in enumerate(ids[:, 1:].tolist()):
            chosen = self.AFTER.get(tuple(sequence), {2: 0.9, 8: 0.1})
            scores[row] = -1e4
            for token, probability in chosen.items():
                scores[row, token] = math.log(probability)
        return scores


@pytest.mark.parametrize("make", [native, grafted])
@pytest.mark.parametrize(
    ("search", "wanted"),
    [
        # [3, end] has ln 0.30 = -1.204 in 2 tokens; [3, 5, end] ln 0.27 = -1.309 in 3; [4, 6, 7, end] ln 0.36 = -1.022
        # in 4. transformers, alpha 0.1: -1.123, -1.173, -0.889. So the longest is best in both.
        ({"length_penalty": 0.1}, [4, 6, 7, 2]),
        ({"length_penalty": 0.1, "length_penalty_kind": "gnmt"}, [4, 6, 7, 2]),
        # alpha -1: transformers multiplies by 2, 3, 4: -2.408, -3.928, -4.087; GNMT by 7/6, 8/6, 9/6: -1.405, -1.746,
        # -1.533. alpha -0.5: transformers -1.703, -2.268, -2.043; GNMT -1.300, -1.512, -1.251.
        ({"length_penalty": -0.5}, [3, 2]),
        ({"length_penalty": -0.5, "length_penalty_kind": "gnmt"}, [4, 6, 7, 2]),
        ({"length_penalty": -1.0, "length_penalty_kind": "gnmt"}, [3, 2]),
    ],
)
def test_gnmt_penalty_chooses_by_hand_computed_scores(make, search, wanted, monkeypatch):
    monkeypatch.setattr(beam_search, "can_drop", lambda *_: True)  # else the script, an unknown processor, prevents it
    processors = LogitsProcessorList([Scripted()])
    given = source(batch_size=1) | search | {"num_beams": 3, "early_stopping": False, "max_new_tokens": 6}
    model = make()
    found = model.generate(**given, logits_processor=processors, use_cache=True)
    assert found[0, 1 : 1 + len(wanted)].tolist() == wanted


def test_gnmt_penalty_may_stand_in_the_generation_config():
    model = native()
    by_argument = model.generate(**source(), num_beams=3, max_new_tokens=9, length_penalty_kind="gnmt")
    model.generation_config.length_penalty_kind = "gnmt"
    assert torch.equal(model.generate(**source(), num_beams=3, max_new_tokens=9), by_argument)


def test_unknown_length_penalty_and_sampled_beams_are_refused():
    with pytest.raises(ValueError, match="Set one of transformers, gnmt"):
        native().generate(**source(), num_beams=3, max_new_tokens=3, length_penalty_kind="gnmd")
    with pytest.raises(ValueError, match="or leave the options out"):
        native().generate(**source(), num_beams=3, max_new_tokens=3, length_penalty_kind="gnmt", do_sample=True)


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
