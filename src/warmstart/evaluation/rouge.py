"""ROUGE-1, -2, -L and -Lsum F1 with stemming for each example, times 100.

What papers call ROUGE-L is rougeLsum. It needs one sentence per line on both sides, so texts are split into sentences
here. Scores come from rouge-score-rs and equal those of Google's rouge-score (tests/evaluation/test_rouge.py). Both
count only words of a-z and 0-9. Texts in other scripts would be scored on their digits, so they are refused.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np
import pysbd
from rouge_score_rs import rouge_scorer

from warmstart.errors import UserError

KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
MOST_LOST = 0.1  # fraction of the letters of references: German loses a few percent, Hindi all of them


@cache
def _segmenter() -> Any:
    return pysbd.Segmenter(language="en", clean=False)


LONG = 5_000  # characters per call of pysbd, whose time grows with the square of the number of sentences


def split_line(line: str) -> list[str]:
    """Split a text without line breaks into sentences, with pysbd; at most ``LONG`` characters per call."""
    portions = []
    while len(line) > LONG:
        cut = line.rfind(". ", 0, LONG) + 1 or line.rfind(" ", 0, LONG) + 1 or LONG
        portions.append(line[:cut])
        line = line[cut:]
    found = (sentence.strip() for portion in (*portions, line) for sentence in _segmenter().segment(portion))
    return [sentence for sentence in found if sentence]


def sentences(text: str) -> list[str]:
    """Split a text into sentences: its lines if there are several, otherwise with pysbd."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines if len(lines) != 1 else split_line(lines[0])


@lru_cache(maxsize=2**16)
def _one_sentence_a_line(text: str) -> str:
    # Cached, because baselines and controls score the same references, and splitting costs far more than scoring.
    return "\n".join(sentences(text))


def rouge_scores(predictions: Sequence[str], references: Sequence[str]) -> dict[str, np.ndarray]:
    """Score each prediction against its reference.

    Returns:
        By kind of ROUGE, F1 times 100 of each example (n,).

    Raises:
        ValueError: The numbers of predictions and references differ.
    """
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions cannot be scored against {len(references)} references.")
    untyped: Any = rouge_scorer
    scorer = untyped.RougeScorer(list(KINDS), use_stemmer=True)
    rows = scorer.score_batch(
        [_one_sentence_a_line(text) for text in references], [_one_sentence_a_line(text) for text in predictions]
    )
    return {kind: np.array([100 * row[kind].fmeasure for row in rows], dtype=np.float64) for kind in KINDS}


def lost_letters(texts: Iterable[str]) -> float:
    """Return the fraction of letters (Unicode category L) that ROUGE ignores: all but a-z, after lowercasing."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text.lower())
    letters = {letter: n for letter, n in counts.items() if unicodedata.category(letter).startswith("L")}
    lost = sum(n for letter, n in letters.items() if not letter.isascii())
    return lost / max(sum(letters.values()), 1)


def check_references(references: Sequence[str], split: str, way_on: str) -> None:
    """Refuse references in a script that ROUGE does not count.

    Args:
        references: All references of the split.
        split: Name of the split, for the message.
        way_on: What the user can do, for the message.

    Raises:
        UserError: ROUGE would ignore more than ``MOST_LOST`` of their letters.
    """
    share = lost_letters(references)
    if share > MOST_LOST:
        example = max(references[:1000], key=lambda text: lost_letters([text]))
        raise UserError(
            f"ROUGE counts only the letters a to z: it would ignore {share:.0%} of the letters in the {split} "
            f"references, such as {_shortened(example)!r}. Its scores would say nothing about these texts. {way_on}"
        )


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:59]}\N{HORIZONTAL ELLIPSIS}"
