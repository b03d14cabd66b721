"""Pieces of a stream join to the decoded text, whatever later tokens change in it."""

import threading

import pytest
import torch

from warmstart.api.streaming import stream

WORDS = {1: " do", 2: " n", 3: " '", 4: " t", 5: " worry", 6: " .", 7: "\ufffd", 8: "語" * 40, 9: " about"}


def decode(ids):
    """Decode as a tokenizer that joins contractions at their end."""
    text = "".join(WORDS[i] for i in ids).strip()
    return text.replace(" n ' t", "n't").replace(" .", ".")


def search(*ids):
    def generate(streamer):
        for i in (0, *ids):  # 0 is the start token
            streamer.put(torch.tensor([i]))
        streamer.end()

    return generate


@pytest.mark.parametrize("ids", [(), (1,), (1, 2, 3, 4), (1, 2, 3, 4, 5, 9, 6), (8, 8, 1), (7, 1, 7)])
def test_pieces_join_to_the_text(ids):
    assert "".join(stream(search(*ids), decode)) == decode(ids)


def test_pieces_come_before_the_end():
    assert list(stream(search(1, 2, 3, 4, 5, 9, 6), decode)) == ["do", "n't", " worry", " about."]
    assert len(list(stream(search(8, 8, 8), decode))) == 3  # a text without blanks


def test_an_error_of_the_search_is_raised_in_the_reader():
    def fails(streamer):
        streamer.put(torch.tensor([0]))
        raise ValueError("broken")

    def fails_at_once(streamer):
        raise ValueError("broken")

    for generate in (fails, fails_at_once):
        with pytest.raises(ValueError, match="broken"):
            list(stream(generate, decode))


def test_closing_the_iterator_ends_the_search():
    ended = threading.Event()

    def endless(streamer):
        try:
            while True:
                streamer.put(torch.tensor([5]))
        finally:
            ended.set()

    pieces = stream(endless, decode)
    next(pieces)
    pieces.close()
    assert ended.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name == "warmstart-stream"]
