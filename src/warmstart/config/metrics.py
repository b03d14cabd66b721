"""The metrics that ``evaluation.metrics`` may name, and the scores of each.

How a metric is computed is in ``warmstart.evaluation.metrics``, in the file of its name.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Score:
    """One score of a metric, by its name in ``result.json``."""

    title: str
    better: str | None = "max"
    """``max`` or ``min``; None if neither more nor less of it is better."""


METRICS: dict[str, dict[str, Score]] = {
    "rouge": {
        "rouge1": Score("ROUGE-1"),
        "rouge2": Score("ROUGE-2"),
        "rougeL": Score("ROUGE-L"),
        "rougeLsum": Score("ROUGE-Lsum"),
    },
    "bleu": {"bleu": Score("BLEU")},
    "chrf": {"chrf": Score("chrF2")},
    "ter": {"ter": Score("TER", "min")},
    "sari": {"sari": Score("SARI")},
    "exact_match": {"exact_match": Score("exact match")},
    "bertscore": {
        "bertscore_precision": Score("BERTScore P"),
        "bertscore_recall": Score("BERTScore R"),
        "bertscore_f1": Score("BERTScore F1"),
    },
    "fragments": {"coverage": Score("coverage", None), "density": Score("density", None)},
    "novel_ngrams": {f"novel_{n}grams": Score(f"novel {n}-grams", None) for n in (1, 2, 3, 4)},
    "repetition": {"repeated_3grams": Score("repeated 3-grams", "min")},
    "length_ratio": {"length_ratio": Score("length ratio", None)},
    "entity_precision": {"entity_precision": Score("entity precision")},
    "number_precision": {"number_precision": Score("number precision")},
}
SCORES: dict[str, Score] = {name: score for scores in METRICS.values() for name, score in scores.items()}
"""All scores by name."""


TITLES = {name: score.title for name, score in SCORES.items()}


def metric_of(score: str) -> str | None:
    """Return the metric that has a score; None for another name, such as ``loss``."""
    return next((metric for metric, scores in METRICS.items() if score in scores), None)


def primary_score(metrics: list[str]) -> str:
    """Return the score that verdicts use: the first of the metrics that says which value is better.

    Raises:
        ValueError: No metric does.
    """
    for metric in metrics:
        for name, score in METRICS[metric].items():
            if score.better is not None:
                return name
    raise ValueError(f"None of the metrics {', '.join(metrics)} says which value is better.")


def primary_of(signatures: Sequence[str]) -> str:
    """Return the score that verdicts use, from the signatures of a result; earlier results have none, and ROUGE-1."""
    known = [metric for metric in (text.partition("|")[0] for text in signatures) if metric in METRICS]
    return primary_score(known) if known else "rouge1"


def split_of(metrics: dict[str, Any]) -> str:
    """Return the split that baselines, controls and predictions of a result belong to.

    It is ``validation`` if the test split was not scored. A result with test scores may also have validation scores.

    Args:
        metrics: The metrics of the result, such as ``test/rouge1``.
    """
    scored = {name.partition("/")[0] for name in metrics}
    return "validation" if "validation" in scored and "test" not in scored else "test"
