"""Summaries belong to their examples for any batches, and the model does not change."""

from dataclasses import replace

import pytest
import torch
from transformers import BertConfig, MambaConfig

from warmstart import EncoderDecoderConfig, EncoderDecoderModel
from warmstart.config.evaluation import GenerationSettings, LengthPenaltyKind
from warmstart.errors import UserError
from warmstart.evaluation.summarize import generation_kwargs, summarize_batches, try_search

GREEDY = GenerationSettings(num_beams=1, max_new_tokens=5)


class Ids:
    def decode(self, ids):
        return [" ".join(map(str, row)) for row in ids.tolist()]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    size = {
        "vocab_size": 40,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 24,
        "initializer_range": 0.5,
    }
    ids = {"decoder_start_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    submodels = {"encoder": BertConfig(**size), "decoder": BertConfig(**size)}
    return EncoderDecoderModel(EncoderDecoderConfig(**submodels, **ids)).train()


def loader(order, size):
    source = torch.randint(3, 40, (6, 5), generator=torch.Generator().manual_seed(0))
    for start in range(0, 6, size):
        index = torch.tensor(order[start : start + size])
        yield {"input_ids": source[index], "attention_mask": torch.ones_like(source[index]), "index": index}


def test_sampling_draws_from_all_configured_tokens():
    flat = {
        "vocab_size": 90,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 8,
    }
    submodels = {"encoder": BertConfig(**flat), "decoder": BertConfig(**flat)}
    torch.manual_seed(0)
    even = EncoderDecoderModel(
        EncoderDecoderConfig(**submodels, decoder_start_token_id=1, eos_token_id=2, pad_token_id=0)
    )
    sampled = GenerationSettings(num_beams=1, do_sample=True, max_new_tokens=1, no_repeat_ngram_size=0)
    ids = even.eval().generate(torch.tensor([[5, 6]]), **generation_kwargs(sampled), num_return_sequences=2000)
    assert len(ids[:, 1].unique()) > 80  # transformers samples from the 50 most likely by default


def test_summaries_belong_to_their_examples(model):
    reported = []
    one = summarize_batches(model, loader([0, 1, 2, 3, 4, 5], 6), Ids(), GREEDY)
    two = summarize_batches(model, loader([5, 2, 0, 4, 1, 3], 4), Ids(), GREEDY, progress=reported.append)
    assert one == two
    assert len(set(one.values())) > 1
    assert reported == [4, 2]


def test_the_model_keeps_its_mode_even_after_a_failure(model):
    def broken():
        yield from loader([0, 1, 2, 3, 4, 5], 3)
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        summarize_batches(model, broken(), Ids(), GREEDY)
    assert model.training


def test_dropout_is_off_and_beams_are_used(model):
    beams = GenerationSettings(num_beams=3, max_new_tokens=5)
    runs = [summarize_batches(model, loader([0, 1, 2, 3, 4, 5], 6), Ids(), beams) for _ in range(2)]
    assert runs[0] == runs[1]


def test_the_search_is_defined_completely_and_other_options_are_unset():
    unset = ("temperature", "top_p", "top_k", "length_penalty", "early_stopping")
    lengths = ("min_new_tokens", "min_length", "max_length")
    assert generation_kwargs(GREEDY) == dict.fromkeys((*unset, *lengths)) | {
        "num_beams": 1,
        "max_new_tokens": 5,
        "no_repeat_ngram_size": 3,
        "do_sample": False,
    }
    sampled = generation_kwargs(GenerationSettings(num_beams=1, do_sample=True, top_p=0.9, min_new_tokens=2))
    assert sampled["top_p"] == 0.9
    assert sampled["min_new_tokens"] == 2
    assert generation_kwargs(GenerationSettings())["length_penalty"] == 1.0


def test_neighbouring_seeds_share_no_draws(model):
    sampled = GenerationSettings(num_beams=1, do_sample=True, max_new_tokens=8, min_new_tokens=8)

    def texts(seed):
        batches = (row | {"index": torch.tensor([i])} for i, row in enumerate(loader([0] * 6, 1)))
        return list(summarize_batches(model, batches, Ids(), sampled, seed=seed).values())

    first, second = texts(1), texts(2)
    assert first == texts(1)
    assert len({*first, *second}) == 12


class OneToken:
    def encode_sources(self, texts, max_length):
        return [[5] for _ in texts]


def test_a_search_that_the_decoder_lacks_is_refused_before_a_fit(model):
    beams = GenerationSettings(num_beams=2, max_new_tokens=9, length_penalty_kind=LengthPenaltyKind.gnmt)
    mamba = MambaConfig(vocab_size=40, hidden_size=16, num_hidden_layers=1)
    ids = {"decoder_start_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    state_space = EncoderDecoderModel(
        EncoderDecoderConfig(encoder=model.config.encoder, decoder=mamba, graft={}, **ids)
    )
    with pytest.raises(UserError, match="only transformers' beam search serves this decoder"):
        try_search(state_space, OneToken(), beams)
    try_search(state_space, OneToken(), replace(beams, num_beams=1))
    try_search(state_space, OneToken(), replace(beams, length_penalty_kind=LengthPenaltyKind.transformers))
    try_search(model, OneToken(), beams)
    assert model.training
