"""The same tokens are blocked as in transformers, and raw logits are not changed."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import OURS, UPSTREAM, small_config, small_decoder_config, source
from transformers import LogitsProcessorList, MinLengthLogitsProcessor, NoRepeatNGramLogitsProcessor
from transformers.generation.logits_process import MinNewTokensLengthLogitsProcessor, TemperatureLogitsWarper

from warmstart.model.generation.logits_processors import NoEarlyEnd, NoRepeatedNGrams, in_place


def drawn(rows, length, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(4, (rows, length), generator=generator), torch.randn(rows, 4, generator=generator)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 12), st.integers(0, 10**6))
def test_the_same_tokens_are_blocked_as_in_transformers(size, rows, length, seed):
    ids, scores = drawn(rows, length, seed)
    theirs = LogitsProcessorList(
        [
            NoRepeatNGramLogitsProcessor(size),
            MinLengthLogitsProcessor(5, 2),
            MinNewTokensLengthLogitsProcessor(3, 4, [0, 3]),
        ]
    )
    wanted = theirs(ids, scores.clone())
    mine = in_place(theirs)
    assert [type(one) for one in mine] == [NoRepeatedNGrams, NoEarlyEnd, NoEarlyEnd]
    assert torch.equal(mine(ids, scores), wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_token_that_ends_a_repeated_and_a_new_ngram_is_blocked(dtype):
    ids = torch.tensor([[1, 2, 3, 2, 1]])
    assert NoRepeatedNGrams(2)(ids, torch.zeros(1, 5, dtype=dtype)).isneginf().nonzero().tolist() == [[0, 2]]


@pytest.mark.parametrize("ends", [-1, 4, [2, 7]])
def test_end_token_outside_the_vocabulary_blocks_nothing(ends):
    ids, scores = drawn(2, 3, 0)
    theirs = LogitsProcessorList([MinLengthLogitsProcessor(5, ends), MinNewTokensLengthLogitsProcessor(1, 4, ends)])
    assert torch.equal(in_place(theirs)(ids, scores.clone()), theirs(ids, scores))


def test_other_processors_and_their_order_are_kept():
    theirs = LogitsProcessorList([TemperatureLogitsWarper(2.0), NoRepeatNGramLogitsProcessor(2)])
    mine = in_place(theirs)
    assert mine[0] is theirs[0]
    assert type(mine[1]) is NoRepeatedNGrams


def test_returned_raw_logits_are_unchanged():
    torch.manual_seed(0)
    ours, theirs = (lib.join(small_config("bert"), small_decoder_config("gpt2")) for lib in (OURS, UPSTREAM))
    theirs.load_state_dict(ours.state_dict(), strict=False)
    wanted = {"max_new_tokens": 5, "min_new_tokens": 5, "output_logits": True, "return_dict_in_generate": True}
    found, expected = (model.generate(**source(), no_repeat_ngram_size=2, **wanted) for model in (ours, theirs))
    assert torch.equal(found.sequences, expected.sequences)
    for mine, their in zip(found.logits, expected.logits, strict=True):
        torch.testing.assert_close(mine, their)
