"""ROUGE-1, -2, -L and -Lsum F1 with stemming, one value for each example, x 100.

rougeLsum is what papers call ROUGE-L: it needs one sentence a line on both sides, so sentences are split here.
Scores come from rouge-score-rs, which equals Google's rouge-score (tests/evaluation/test_rouge.py).
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pysbd
from rouge_score_rs import rouge_scorer

KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")


@cache
def _segmenter() -> Any:
    return pysbd.Segmenter(language="en", clean=False)


def sentences(text: str) -> list[str]:
    """Sentences of ``text``: its lines where it has several, else as pysbd splits it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) != 1:
        return lines
    return [part.strip() for part in _segmenter().segment(lines[0]) if part.strip()]


def rouge_scores(predictions: Sequence[str], references: Sequence[str]) -> dict[str, np.ndarray]:
    """F1 x 100 of each pair, by kind; arrays of the inputs' length."""
    scorer = rouge_scorer.RougeScorer(list(KINDS), use_stemmer=True)
    rows = [
        scorer.score("\n".join(sentences(reference)), "\n".join(sentences(prediction)))
        for prediction, reference in zip(predictions, references, strict=True)
    ]
    return {kind: np.array([100 * row[kind].fmeasure for row in rows]) for kind in KINDS}
