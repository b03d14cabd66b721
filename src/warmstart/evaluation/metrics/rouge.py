"""ROUGE-1, -2, -L and -Lsum F1 for each example, times 100.

What papers call ROUGE-L is rougeLsum. It needs one sentence per line on both sides, so texts are split into sentences
here. Scores come from rouge-score-rs and equal those of Google's rouge-score with the same tokenizer
(tests/evaluation/metrics/test_rouge.py). In English both count only words of a-z and 0-9, stemmed by Porter's
algorithm. Texts in other scripts would be scored on their digits, so they are refused; ``data.language`` chooses a
tokenizer that reads them.
"""

from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
from rouge_score_rs import rouge_scorer
from rouge_score_rs.tokenizers import CharacterTokenizer, UnicodeTokenizer

from warmstart.config.evaluation import EvaluationSettings
from warmstart.config.metrics import METRICS
from warmstart.evaluation.columns import Columns
from warmstart.evaluation.languages import StemmedWords, language, one_sentence_a_line
from warmstart.evaluation.metrics.metric import Metric, Texts, signed

KINDS = tuple(METRICS["rouge"])


def rouge_scores(predictions: Sequence[str], references: Sequence[str], code: str = "en") -> dict[str, np.ndarray]:
    """Score each prediction against its reference.

    Args:
        predictions: The texts to score.
        references: Their references.
        code: ISO code of their language.

    Returns:
        By kind of ROUGE, F1 times 100 of each example (n,).

    Raises:
        ValueError: The numbers of predictions and references differ.
    """
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions cannot be scored against {len(references)} references.")
    untyped: Any = rouge_scorer
    scorer = untyped.RougeScorer(list(KINDS), use_stemmer=True, tokenizer=rouge_tokenizer(code))
    rows = scorer.score_batch(
        [one_sentence_a_line(text, code) for text in references],
        [one_sentence_a_line(text, code) for text in predictions],
    )
    return {kind: np.array([100 * row[kind].fmeasure for row in rows], dtype=np.float64) for kind in KINDS}


@cache
def rouge_tokenizer(code: str) -> Any:
    """Return the tokenizer of a language; None for English, whose tokenizer is the scorer's own."""
    found, untyped = language(code), (UnicodeTokenizer, CharacterTokenizer)
    words, characters = untyped
    if found.tokenizer == "rouge-score":
        return None
    if found.tokenizer == "character-v1":
        return characters()
    return words() if found.stemmer is None else StemmedWords(found.stemmer)


def _score(texts: Texts, settings: EvaluationSettings) -> Columns:
    return dict(rouge_scores(texts.predictions, texts.references, texts.language))


def _signature(code: str, settings: EvaluationSettings) -> str:
    return signed("rouge", f"rouge-score-rs-{version('rouge-score-rs')}", **language(code).signature())


METRIC = Metric(_score, _signature)
