"""ROUGE-1, -2, -L and -Lsum F1 with stemming, one value for each example, x 100.

rougeLsum is what papers call ROUGE-L: it needs one sentence a line on both sides, so sentences are split here.
Scores come from rouge-score-rs, which equals Google's rouge-score (tests/evaluation/test_rouge.py). Like
that, it counts only words of a-z and 0-9: texts in other scripts would be scored on their digits, and are refused.
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
MOST_LOST = 0.1  # share of the letters of references: German loses a few per cent, Hindi all of them


@cache
def _segmenter() -> Any:
    return pysbd.Segmenter(language="en", clean=False)


LONG = 5_000  # characters that pysbd is given at once: its time grows with the square of the number of sentences


def split_line(line: str) -> list[str]:
    """Sentences of a text without line breaks, as pysbd splits it; one of over ``LONG`` characters in portions."""
    portions = []
    while len(line) > LONG:
        cut = line.rfind(". ", 0, LONG) + 1 or line.rfind(" ", 0, LONG) + 1 or LONG
        portions.append(line[:cut])
        line = line[cut:]
    found = (part.strip() for portion in (*portions, line) for part in _segmenter().segment(portion))
    return [part for part in found if part]


def sentences(text: str) -> list[str]:
    """Sentences of ``text``: its lines where it has several, else as pysbd splits it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines if len(lines) != 1 else split_line(lines[0])


@lru_cache(maxsize=2**16)
def _one_sentence_a_line(text: str) -> str:
    # Baselines and control score the same references again; splitting costs far more than scoring.
    return "\n".join(sentences(text))


def rouge_scores(predictions: Sequence[str], references: Sequence[str]) -> dict[str, np.ndarray]:
    """F1 x 100 of each pair, by kind; arrays of the inputs' length."""
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions cannot be scored against {len(references)} references.")
    scorer = rouge_scorer.RougeScorer(list(KINDS), use_stemmer=True)
    rows = scorer.score_batch(
        [_one_sentence_a_line(text) for text in references], [_one_sentence_a_line(text) for text in predictions]
    )
    return {kind: np.array([100 * row[kind].fmeasure for row in rows], dtype=np.float64) for kind in KINDS}


def lost_letters(texts: Iterable[str]) -> float:
    """Share of the letters (Unicode category L) of all ``texts`` that ROUGE drops: all but a-z, in lower case."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text.lower())
    letters = {letter: n for letter, n in counts.items() if unicodedata.category(letter).startswith("L")}
    lost = sum(n for letter, n in letters.items() if not letter.isascii())
    return lost / max(sum(letters.values()), 1)


def check_references(references: Sequence[str], split: str, way_on: str) -> None:
    """Refuse references that ROUGE cannot read.

    Args:
        references: All of the split.
        split: Its name, for the message.
        way_on: What the person can do, for the message.

    Raises:
        UserError: ROUGE would drop more than ``MOST_LOST`` of their letters.
    """
    share = lost_letters(references)
    if share > MOST_LOST:
        example = max(references[:1000], key=lambda text: lost_letters([text]))
        raise UserError(
            f"ROUGE reads only the letters a to z: it would drop {share:.0%} of the letters of the {split} references, "
            f"such as {_shortened(example)!r}. Its scores would say nothing about these texts. {way_on}"
        )


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:59]}\N{HORIZONTAL ELLIPSIS}"
