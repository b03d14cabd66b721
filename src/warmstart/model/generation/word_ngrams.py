"""Blocked n-grams of words, as in BertSum (Liu & Lapata 2019), where no trigram of words may occur twice.

A word is what stands between blanks of the decoded text, so that it may have several tokens. WordPiece tokenizers also
separate punctuation. Blocked n-grams of tokens (``no_repeat_ngram_size``) are stricter: they also block a repeated long
word.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import LogitsProcessor


@dataclass(frozen=True)
class Piece:
    """The text of a token, and whether it begins a word or, as a special token, is a word of its own."""

    text: str
    begins: bool
    is_special: bool = False


def pieces_of(tokenizer: Any) -> list[Piece]:
    """Return the piece of every id of a tokenizer, in the order of the ids."""
    tokens: list[str] = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    special = set(tokenizer.all_special_tokens)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and type(backend.decoder).__name__ == "WordPiece":
        return [Piece(token.removeprefix("##"), not token.startswith("##"), token in special) for token in tokens]
    marks = "\u0120\u2581"  # of GPT-2 and of SentencePiece
    if not any(token.startswith(tuple(marks)) for token in tokens):  # then every token is a word
        return [Piece(token, True, token in special) for token in tokens]
    return [Piece(token.lstrip(marks), token.startswith(tuple(marks)), token in special) for token in tokens]


class NoRepeatedWordNGrams(LogitsProcessor):
    """Block tokens after which the last n words of a sequence have occurred in it before.

    Args:
        size: Length of the n-grams in words.
        pieces: The piece of every id; ids beyond them are words of their own.
        begin: Position of the first token whose n-grams count: those of a document before it may be repeated.
    """

    def __init__(self, size: int, pieces: Sequence[Piece], begin: int = 0) -> None:
        self.size, self.pieces, self.begin = size, pieces, begin
        self._ids: dict[tuple[bool, str], list[int]] = {}
        for i, piece in enumerate(pieces):
            self._ids.setdefault((piece.begins or piece.is_special, piece.text), []).append(i)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.size})"

    def words(self, ids: Iterable[int]) -> list[str]:
        """Return the words of a sequence of ids; the last one may be incomplete."""
        found: list[str] = []
        ended = True
        for i in ids:
            piece = self.pieces[i] if i < len(self.pieces) else Piece(f"<{i}>", True, True)
            if ended or piece.begins or piece.is_special:
                found.append(piece.text)
            else:
                found[-1] += piece.text
            ended = piece.is_special
        return found

    def ngrams(self, words: Sequence[str]) -> set[tuple[str, ...]]:
        """Return the n-grams of some words."""
        return {tuple(words[i : i + self.size]) for i in range(len(words) - self.size + 1)}

    def blocked(self, ids: Sequence[int]) -> list[int]:
        """Return the ids of the tokens that may not follow a sequence."""
        words, found = self.words(ids), []
        begun = tuple(words[len(words) - self.size + 1 :])
        for *start, last in self.ngrams(words):
            if tuple(start) == begun:
                found += self._ids.get((True, last), [])
        if len(words) >= self.size and not self._is_special(ids[-1]):
            *begin, open_word = words[-self.size :]
            for *start, last in self.ngrams(words[:-1]):
                if start == begin and last.startswith(open_word) and last != open_word:
                    found += self._ids.get((False, last[len(open_word) :]), [])
        return found

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Set the scores (R, V) of blocked tokens after the ids (R, T) to minus infinity, in place."""
        for row, ids in enumerate(input_ids[:, self.begin :].tolist()):
            if blocked := [i for i in self.blocked(ids) if i < scores.shape[1]]:
                scores[row, blocked] = float("-inf")
        return scores

    def _is_special(self, i: int) -> bool:
        return i >= len(self.pieces) or self.pieces[i].is_special
