"""The judgement of a run: ROUGE with intervals, beside the lead baselines and the controls.

Every rival is scored on the same examples as the model, and the interval that counts is that of the difference:
two overlapping intervals can still hide a sure difference.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from warmstart.config.evaluation import EvaluationSettings
from warmstart.errors import UserError
from warmstart.evaluation.baselines import lead
from warmstart.evaluation.bootstrap import bootstrap_intervals
from warmstart.evaluation.controls import shuffled_document
from warmstart.evaluation.likelihood import ALONE, OWN, SHUFFLED
from warmstart.evaluation.rouge import rouge_scores

Columns = dict[str, np.ndarray]  # one value for each example, by name


@dataclass
class Judgement:
    """``metrics``, ``baselines`` and ``controls`` as result.json holds them, and each example's scores.

    Those of a baseline are under ``lead1/rouge1`` and so on: a report need not split every document again.
    """

    metrics: dict[str, Any]
    baselines: dict[str, dict[str, Any]] = field(default_factory=dict)
    controls: dict[str, dict[str, Any]] = field(default_factory=dict)
    per_example: Columns = field(default_factory=dict)


def judge(
    predictions: Sequence[str],
    references: Sequence[str],
    documents: Sequence[str],
    settings: EvaluationSettings,
    seed: int,
    *,
    likelihoods: Columns | None = None,
    alone: str | None = None,
) -> Judgement:
    """Score the predictions, the baselines and the controls on the same examples, all in the same order.

    ``likelihoods`` are those of :mod:`warmstart.evaluation.likelihood`; ``alone`` is what the decoder writes without a
    source.

    Raises:
        UserError: there are no examples.
    """
    if not predictions:
        raise UserError(
            "The test split has no examples, so nothing can be scored. Check data.test_path and data.limit_test."
        )
    if not len(predictions) == len(references) == len(documents):
        raise ValueError(f"{len(predictions)} predictions, {len(references)} references, {len(documents)} documents.")
    scores = rouge_scores(predictions, references)
    judgement = Judgement(_with_intervals(scores, settings, seed, "test/"), per_example=dict(scores))
    judgement.metrics |= {f"test/{name}": value for name, value in about_texts(predictions, documents).items()}
    judgement.metrics["test/reference_words"] = _words(references)
    judgement.metrics["test/examples"] = len(predictions)

    for n in sorted({1, settings.lead_sentences}):
        rival = rouge_scores(lead(documents, n), references)
        judgement.baselines[f"lead{n}"] = _beside(scores, rival, settings, seed)
        judgement.per_example |= {f"lead{n}/{kind}": values for kind, values in rival.items()}
    rows = _control_rows(len(predictions), settings, seed)
    if len(rows):
        rival = shuffled_document(predictions, references, shuffles=settings.control_shuffles, seed=seed, rows=rows)
        own = {kind: values[rows] for kind, values in scores.items()}
        control = _beside(own, rival, settings, seed)
        control |= {"examples": len(rows), "shuffles": settings.control_shuffles}
        judgement.controls[SHUFFLED] = control
    if alone is not None:
        rival = rouge_scores([alone] * len(references), references)
        judgement.controls[ALONE] = _beside(scores, rival, settings, seed) | {"text": alone}
    if likelihoods:
        own = {"nll": likelihoods[OWN]}
        judgement.metrics |= _with_intervals(own, settings, seed, "test/")
        judgement.per_example |= own
        for name, control in judgement.controls.items():
            of = rows if name == SHUFFLED else np.arange(len(predictions))  # what its ROUGE is of
            control |= _beside({"nll": own["nll"][of]}, {"nll": likelihoods[name][of]}, settings, seed)
    return judgement


def about_texts(predictions: Sequence[str], documents: Sequence[str]) -> dict[str, float]:
    """What ROUGE does not show: length, how many summaries differ, are empty, and how much is not the document's."""
    return {
        "words": _words(predictions),
        "distinct_fraction": len(set(predictions)) / len(predictions),
        "empty_fraction": sum(not text.strip() for text in predictions) / len(predictions),
        "novel_bigram_fraction": novel_bigram_fraction(predictions, documents),
    }


def novel_bigram_fraction(predictions: Sequence[str], documents: Sequence[str]) -> float:
    """Share of the summaries' word pairs that their documents do not hold: 0 copies, 1 is all its own."""
    novel = total = 0
    for prediction, document in zip(predictions, documents, strict=True):
        known = set(pairwise(re.findall(r"\w+", document.lower())))
        pairs = list(pairwise(re.findall(r"\w+", prediction.lower())))
        total += len(pairs)
        novel += sum(pair not in known for pair in pairs)
    return novel / total if total else 0.0


def _with_intervals(columns: Columns, settings: EvaluationSettings, seed: int, prefix: str = "") -> dict[str, Any]:
    """The mean of each column under its name, and its interval under ``NAME_ci``."""
    intervals = bootstrap_intervals(np.stack(list(columns.values()), axis=1), settings.bootstrap_samples, seed)
    means = {f"{prefix}{name}": float(values.mean()) for name, values in columns.items()}
    return means | {f"{prefix}{name}_ci": interval.tolist() for name, interval in zip(columns, intervals, strict=True)}


def _beside(own: Columns, rival: Columns, settings: EvaluationSettings, seed: int) -> dict[str, Any]:
    """The rival's scores and the model's minus the rival's, example by example."""
    with np.errstate(invalid="ignore"):  # likelihoods may be infinite; the verdict says so
        lead_over = {f"{kind}_difference": own[kind] - rival[kind] for kind in rival}
    return _with_intervals(rival | lead_over, settings, seed)


def _control_rows(n: int, settings: EvaluationSettings, seed: int) -> np.ndarray:
    wanted = n if settings.control_samples is None else min(settings.control_samples, n)
    if n < 2 or wanted < 1 or settings.control_shuffles < 1:
        return np.arange(0)
    return np.sort(np.random.default_rng(seed).choice(n, wanted, replace=False))


def _words(texts: Sequence[str]) -> float:
    return float(np.mean([len(text.split()) for text in texts]))
