"""Which tokens of a document the encoder reads, and how a long document is cut into windows.

    layout = SourceLayout(512, windows=4, overlap=32)
    rows = layout.encode(pair, texts)    # the ids of each document, its windows one after the other
    layout.windows_of(rows[0])           # the windows again

Each window has the encoder's special tokens. Every window except the last has exactly ``window`` ids, so a row needs no
record of where its windows end.
"""

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from warmstart.config.data import DataSettings, Truncation
from warmstart.data.tokenization.pair import TokenizerPair
from warmstart.errors import UserError

UNLIMITED = sys.maxsize // 2  # the tokenizers library takes no larger number

_Row = TypeVar("_Row", Sequence[int], np.ndarray)


@dataclass(frozen=True)
class SourceLayout:
    """The options of the ``data`` group that decide which tokens of a document are read.

    Args:
        window: Longest window in ids, special tokens included.
        windows: Largest number of windows of a document.
        overlap: Ids at the end of a window that the next one repeats.
        truncation: What is kept of a document that is too long.
        language: ISO code of the language, for the ends of sentences.
    """

    window: int
    windows: int = 1
    overlap: int = 0
    truncation: Truncation = Truncation.head
    language: str = "en"

    @classmethod
    def of(cls, settings: DataSettings, positions: int | None = None) -> "SourceLayout":
        """Return the layout of a config.

        Args:
            settings: The ``data`` group.
            positions: Largest number of positions of the encoder; None if it has no limit.
        """
        return cls(
            min(settings.max_source_length, positions or settings.max_source_length),
            settings.source_windows,
            settings.window_overlap,
            settings.truncation,
            settings.language,
        )

    @property
    def is_plain(self) -> bool:
        """Whether a document is its first ``window`` ids."""
        return self.windows == 1 and self.truncation is Truncation.head

    @property
    def longest(self) -> int:
        """Largest number of ids of a document, special tokens and repeated ids included."""
        return self.window * self.windows

    def without_limit(self) -> "SourceLayout":
        """Return the layout with which documents of any length are read whole."""
        return replace(self, window=UNLIMITED) if self.windows == 1 else replace(self, windows=UNLIMITED)

    def fingerprint(self) -> dict[str, Any]:
        """Return what distinguishes the ids of two layouts, as plain values; that of a plain layout is its length."""
        about: dict[str, Any] = {"max_source_length": self.window}
        if self.windows > 1:
            about |= {"source_windows": self.windows, "window_overlap": self.overlap}
        if self.truncation is not Truncation.head:
            about["truncation"] = self.truncation.value
        if self.truncation is Truncation.lead_sentences:
            about["language"] = self.language
        return about

    def encode(self, tokenizers: TokenizerPair, texts: Sequence[str]) -> list[list[int]]:
        """Tokenize documents.

        Args:
            tokenizers: The pair of tokenizers.
            texts: The documents.

        Returns:
            Ids of each document, at most ``longest``: its windows one after the other.

        Raises:
            UserError: The windows are too short, or the tokenizer does not add special tokens at both ends only.
        """
        return self.encode_and_count(tokenizers, texts)[0]

    def encode_and_count(self, tokenizers: TokenizerPair, texts: Sequence[str]) -> tuple[list[list[int]], int | None]:
        """Tokenize documents, and count those that were cut; a plain layout does not count them (None)."""
        if self.is_plain:
            return tokenizers.encode_sources(texts, self.window), None
        first, last = _special_ids(tokenizers)
        room = self.window - len(first) - len(last)  # ids of the text in a window
        step = room - self.overlap
        if step < 1:
            raise UserError(
                f"data.max_source_length={self.window} with data.window_overlap={self.overlap} leaves no new token "
                f"for a window: the encoder's tokenizer adds {len(first) + len(last)} special tokens. Lower "
                "data.window_overlap."
            )
        capacity = room + (self.windows - 1) * step
        rows, cut = [], 0
        for text, ids in zip(texts, tokenizers.encode_sources(texts, UNLIMITED, special=False), strict=True):
            if len(ids) > capacity:
                cut += 1
                ids = self._kept(tokenizers, text, ids, capacity)
            count = 1 + max(0, math.ceil((len(ids) - room) / step))
            row = [i for n in range(count) for i in (*first, *ids[n * step : n * step + room], *last)]
            rows.append(row or [tokenizers.source_pad_id])
        return rows, cut

    def windows_of(self, row: _Row) -> list[_Row]:
        """Cut the ids of a document into its windows; all except the last have ``window`` ids."""
        return [row[start : start + self.window] for start in range(0, len(row), self.window)]

    def padded_length(self, length: int) -> int:
        """Return the number of ids of a row after its last window is padded to the length of the others."""
        return length if length <= self.window else math.ceil(length / self.window) * self.window

    def estimated_lengths(self, tokens: np.ndarray) -> np.ndarray:
        """Estimate the numbers of ids that documents become, with two special tokens in each window.

        Args:
            tokens: Tokens of each whole document, its two special tokens included (N,).
        """
        more = np.ceil(np.maximum(0, tokens - self.window) / max(1, self.window - 2 - self.overlap))
        lengths: np.ndarray = np.minimum(tokens + more * (2 + self.overlap), self.longest)
        return lengths

    def _kept(self, tokenizers: TokenizerPair, text: str, ids: list[int], capacity: int) -> list[int]:
        if self.truncation is Truncation.head_tail:
            head = math.ceil(capacity / 2)
            return ids[:head] + ids[len(ids) - (capacity - head) :]
        if self.truncation is Truncation.lead_sentences:
            whole = _lead_sentences(tokenizers, text, len(ids), capacity, self.language)
            if whole:  # else the first sentence does not fit
                return whole
        return ids[:capacity]


def _lead_sentences(tokenizers: TokenizerPair, text: str, length: int, capacity: int, language: str) -> list[int]:
    """Return the ids of as many first sentences as fit into ``capacity``; empty if the first one does not fit.

    Splitting is slow, so only a first part of the text is split; a longer one if all of its sentences fit.
    """
    part = 1.5 * capacity / length
    while True:
        cut = int(len(text) * part) + 1
        ends = list(_sentence_ends(text[:cut], language))
        if cut < len(text):
            ends = ends[:-1]  # the last sentence goes on after the cut
        pieces = [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        lengths = np.cumsum([len(ids) for ids in tokenizers.encode_sources(pieces, UNLIMITED, special=False)])
        count = int((lengths <= capacity).sum())
        if count < len(ends) or cut >= len(text):
            break
        part *= 2

    def ids_of(sentences: int) -> list[int]:
        until = ends[sentences - 1] if sentences else 0
        return tokenizers.encode_sources([text[:until]], UNLIMITED, special=False)[0]

    # Sentences of which each is tokenized by itself may have a token more or less than together.
    kept = ids_of(count)
    while len(kept) > capacity:
        count -= 1
        kept = ids_of(count)
    while count < len(ends) and len(more := ids_of(count + 1)) <= capacity:
        count, kept = count + 1, more
    return kept


def _sentence_ends(text: str, language: str) -> Iterator[int]:
    """Yield where the sentences of a text end, line by line."""
    from warmstart.evaluation.languages import split_line

    start = 0
    for line in text.splitlines(keepends=True):
        at = start
        for sentence in split_line(line.strip(), language):
            found = text.find(sentence, at)
            if found >= 0:  # a splitter may change blanks; its next sentence then ends this one too
                at = found + len(sentence)
                yield at
        start += len(line)


def _special_ids(tokenizers: TokenizerPair) -> tuple[list[int], list[int]]:
    """Return the special ids that the encoder's tokenizer puts before and after a text.

    Raises:
        UserError: It changes the ids of the text when it adds special tokens.
    """
    (ids,), (whole,) = (tokenizers.encode_sources(["a"], UNLIMITED, special=special) for special in (False, True))
    for start in range(len(whole) - len(ids) + 1) if ids else ():
        if whole[start : start + len(ids)] == ids:
            return whole[:start], whole[start + len(ids) :]
    raise UserError(
        "data.source_windows and data.truncation need an encoder whose tokenizer adds special tokens only before and "
        f"after a text, but {type(tokenizers.source).__name__} makes {whole} of the letter a, which has the ids {ids}. "
        "Set data.source_windows=1 data.truncation=head, or choose another encoder.tokenizer."
    )
