"""ROUGE-1, -2, -L and -Lsum F1 with stemming, one value for each example, x 100.

rougeLsum is what papers call ROUGE-L: it needs one sentence a line on both sides, so sentences are split here.
Scores come from rouge-score-rs, which equals Google's rouge-score (tests/evaluation/test_rouge.py). Like
that, it counts words of a-z and 0-9 alone: of texts in other scripts it says nothing.
"""

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np
import pysbd
from rouge_score_rs import rouge_scorer

KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")


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
