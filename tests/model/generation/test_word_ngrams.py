"""No trigram of words occurs twice, by the rule of BertSum's code: the last three words have not occurred before."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import OURS, small_config, small_decoder_config, source
from transformers import LogitsProcessorList

from warmstart.model.generation.word_ngrams import NoRepeatedWordNGrams, Piece, pieces_of

VOCABULARY = ["[CLS]", "the", "cat", "play", "##ing", "sat", "##s", "playing", "[SEP]"]
PIECES = [Piece(one.removeprefix("##"), not one.startswith("##"), one.startswith("[")) for one in VOCABULARY]


def ids_of(text):
    return [VOCABULARY.index(token) for token in text.split()]


def words_of(ids):
    return " ".join(VOCABULARY[i] for i in ids).replace(" ##", "").split()


def fails_in_bertsum(ids):
    """Return whether the published code drops a sequence (predictor.py, block_trigram)."""
    words = words_of(ids)
    if len(words) <= 3:
        return False
    trigrams = [(words[i - 1], words[i], words[i + 1]) for i in range(1, len(words) - 1)]
    return trigrams[-1] in trigrams[:-1]


@pytest.mark.parametrize(
    ("text", "blocked"),
    [
        ("[CLS] the cat sat the cat", ["sat"]),
        ("[CLS] the cat play ##ing the cat", ["playing"]),
        ("[CLS] the cat play ##ing the cat play", ["##ing"]),
        ("[CLS] the cat playing the cat play", ["##ing"]),
        ("[CLS] the cat sat the", []),
        ("[CLS] the cat", []),
        ("the the the", ["the"]),
    ],
)
def test_blocked_tokens_by_hand(text, blocked):
    assert [VOCABULARY[i] for i in NoRepeatedWordNGrams(3, PIECES).blocked(ids_of(text))] == blocked


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(1, 7), max_size=9), st.integers(1, 4))
def test_a_token_is_blocked_exactly_where_bertsum_drops_the_sequence_with_it(ids, first):
    ids = [first, *ids]  # a sequence does not begin inside a word
    if first == 4:
        ids[0] = 1
    scores = NoRepeatedWordNGrams(3, PIECES)(torch.tensor([ids]), torch.zeros(1, len(VOCABULARY)))
    assert scores[0].isneginf().tolist() == [fails_in_bertsum([*ids, token]) for token in range(len(VOCABULARY))]


@pytest.mark.parametrize(
    ("tokens", "ids", "words"),
    [
        (["<s>", "\u0120a", "\u0120b", "c"], [0, 1, 2, 3, 2], ["<s>", "a", "bc", "b"]),
        (["<s>", "\u2581a", "b"], [0, 2, 1, 2], ["<s>", "b", "ab"]),
        (["<s>", "a", "b"], [1, 2, 2], ["a", "b", "b"]),
    ],
)
def test_words_of_other_tokenizers(tokens, ids, words):
    class Tokenizer:
        all_special_tokens = ("<s>",)

        def __len__(self):
            return len(tokens)

        def convert_ids_to_tokens(self, given):
            return [tokens[i] for i in given]

    assert NoRepeatedWordNGrams(3, pieces_of(Tokenizer())).words(ids) == words


def test_beams_of_a_model_repeat_no_trigram_of_words():
    torch.manual_seed(0)
    model = OURS.join(small_config("bert"), small_decoder_config("gpt2"), pad_token_id=3)
    pieces = [Piece(str(i % 5), i % 3 > 0) for i in range(model.config.decoder.vocab_size)]
    blocker = NoRepeatedWordNGrams(3, pieces)
    search = {"num_beams": 3, "max_new_tokens": 40, "min_new_tokens": 30, "no_repeat_ngram_size": 0}
    plain = model.generate(**source(), **search)
    found = model.generate(**source(), **search, logits_processor=LogitsProcessorList([blocker]))

    def repeated(rows):
        total = 0
        for row in rows[:, :31].tolist():
            words = blocker.words(row)[:-1]
            total += len(words) - 2 - len(blocker.ngrams(words))
        return total

    assert repeated(plain) > 0
    assert repeated(found) == 0
