"""N-grams are banned as transformers bans them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import NoRepeatNGramLogitsProcessor

from warmstart.model.no_repeat import NoRepeatedNGrams


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 12), st.integers(0, 10**6))
def test_the_same_tokens_are_banned(size, rows, length, seed):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, (rows, length), generator=generator)
    scores = torch.randn(rows, 4, generator=generator)
    wanted = NoRepeatNGramLogitsProcessor(size)(ids, scores.clone())
    before = scores.clone()
    assert torch.equal(NoRepeatedNGrams(size)(ids, scores), wanted)
    assert torch.equal(scores, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_token_that_ends_a_repeated_and_another_gram_is_banned(dtype):
    ids = torch.tensor([[1, 2, 3, 2, 1]])
    assert NoRepeatedNGrams(2)(ids, torch.zeros(1, 5, dtype=dtype)).isneginf().nonzero().tolist() == [[0, 2]]
