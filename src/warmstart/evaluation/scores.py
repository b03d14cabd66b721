"""The judgement of a run: ROUGE with intervals, beside the lead baselines and the shuffled-document control."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from warmstart.evaluation.baselines import lead
from warmstart.evaluation.controls import derangement
from warmstart.evaluation.intervals import bootstrap_interval, paired_difference
from warmstart.evaluation.rouge import rouge_scores
from warmstart.evaluation.settings import EvaluationSettings

DERANGEMENTS = 3  # the control is the mean over this many shuffles


@dataclass
class Judgement:
    """``metrics``, ``baselines`` and ``controls`` as result.json holds them, and each example's scores."""

    metrics: dict[str, Any]
    baselines: dict[str, dict[str, Any]] = field(default_factory=dict)
    controls: dict[str, dict[str, Any]] = field(default_factory=dict)
    per_example: dict[str, np.ndarray] = field(default_factory=dict)


def judge(
    predictions: Sequence[str],
    references: Sequence[str],
    documents: Sequence[str],
    settings: EvaluationSettings,
    seed: int,
) -> Judgement:
    """Score the predictions, the baselines and the control on the same examples."""
    scores = rouge_scores(predictions, references)

    def summary(values: dict[str, np.ndarray], prefix: str = "") -> dict[str, Any]:
        means = {f"{prefix}{kind}": float(value.mean()) for kind, value in values.items()}
        intervals = {
            f"{prefix}{kind}_ci": list(bootstrap_interval(value, settings.bootstrap_samples, seed))
            for kind, value in values.items()
        }
        return means | intervals

    def beside(values: dict[str, np.ndarray]) -> dict[str, Any]:
        """The rival's scores and the model's lead over it on the same examples."""
        row = summary(values)
        for kind, value in values.items():
            mean, low, high = paired_difference(scores[kind], value, settings.bootstrap_samples, seed)
            row[f"{kind}_difference"], row[f"{kind}_difference_ci"] = mean, [low, high]
        return row

    metrics = summary(scores, "test/")
    metrics["test/words"] = float(np.mean([len(text.split()) for text in predictions]))
    metrics["test/distinct_fraction"] = len(set(predictions)) / len(predictions)
    metrics["test/novel_bigram_fraction"] = _novel_bigram_fraction(predictions, documents)
    metrics["test/examples"] = len(predictions)
    judgement = Judgement(metrics, per_example=scores)
    for n in sorted({1, settings.lead_sentences}):
        judgement.baselines[f"lead{n}"] = beside(rouge_scores(lead(documents, n), references))
    if len(predictions) > 1 and settings.control_samples != 0:
        judgement.controls["shuffled_document"] = beside(_shuffled(predictions, references, seed))
    return judgement


def _shuffled(predictions: Sequence[str], references: Sequence[str], seed: int) -> dict[str, np.ndarray]:
    runs = []
    for shuffle in range(DERANGEMENTS):
        order = derangement(len(predictions), seed + shuffle)
        runs.append(rouge_scores([predictions[i] for i in order], references))
    return {kind: np.mean([run[kind] for run in runs], axis=0) for kind in runs[0]}


def _novel_bigram_fraction(predictions: Sequence[str], documents: Sequence[str]) -> float:
    """Share of the summaries' word pairs that their documents do not hold: 0 copies, 1 is all its own."""
    novel = total = 0
    for prediction, document in zip(predictions, documents, strict=True):
        words, source = prediction.lower().split(), document.lower().split()
        known = set(pairwise(source))
        pairs = list(pairwise(words))
        total += len(pairs)
        novel += sum(pair not in known for pair in pairs)
    return novel / total if total else 0.0
