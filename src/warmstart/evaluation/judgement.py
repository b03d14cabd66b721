"""The judgement of a run: ROUGE with intervals, compared with the baselines and the controls.

Every rival (a baseline or a control) is scored on the same examples as the model. Conclusions use the interval of the
paired difference, because a difference can be significant even if the two intervals overlap.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from warmstart.config.evaluation import EvaluationSettings
from warmstart.errors import UserError
from warmstart.evaluation.baselines import MOST_TRAINING_EXAMPLES, OF_TRAINING, Pair, baseline_texts
from warmstart.evaluation.bootstrap import bootstrap_intervals
from warmstart.evaluation.controls import shuffled_document
from warmstart.evaluation.likelihood import ALONE, OWN, SHUFFLED
from warmstart.evaluation.rouge import rouge_scores

Columns = dict[str, np.ndarray]  # one value for each example, by name


@dataclass
class Judgement:
    """The scores of a run; ``metrics``, ``baselines`` and ``controls`` as in result.json."""

    metrics: dict[str, Any]
    """The model's means and intervals, such as ``test/rouge1`` and ``test/rouge1_ci``."""
    baselines: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By baseline: its means, and the paired differences of the model from it."""
    controls: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By control: its means, and the paired differences of the model from it."""
    per_example: Columns = field(default_factory=dict)
    """Scores of each example (n,): the model's as ``rouge1``, a baseline's as ``lead1/rouge1``."""
    texts: dict[str, list[str]] = field(default_factory=dict)
    """By baseline, its texts, if they cannot be made again from the documents."""


def judge(
    predictions: Sequence[str],
    references: Sequence[str],
    documents: Sequence[str],
    settings: EvaluationSettings,
    seed: int,
    *,
    baselines: Sequence[str] = ("lead",),
    training: Sequence[Pair] = (),
    likelihoods: Columns | None = None,
    alone: str | None = None,
) -> Judgement:
    """Score the predictions, the baselines and the controls on the same examples.

    Args:
        predictions: Summaries of the model.
        references: References, in the same order.
        documents: Documents, in the same order.
        settings: The ``evaluation`` group of the config.
        seed: Seed of the resamples and shuffles.
        baselines: Names of the baselines, as in ``data.baselines``.
        training: The training examples, for the baselines that use them.
        likelihoods: Nats per token of each reference, see ``warmstart.evaluation.likelihood``.
        alone: The text that the decoder generates without a source.

    Raises:
        UserError: There are no examples.
        ValueError: The numbers of predictions, references and documents differ.
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

    found = baseline_texts(baselines, documents, training, lead_sentences=settings.lead_sentences)
    for name, texts in found.items():
        rival = rouge_scores(texts, references)
        judgement.baselines[name] = _compared(scores, rival, settings, seed)
        judgement.per_example |= {f"{name}/{kind}": values for kind, values in rival.items()}
        if name in OF_TRAINING:
            judgement.baselines[name]["training_examples"] = min(len(training), MOST_TRAINING_EXAMPLES)
            judgement.texts[name] = texts
    rows = _control_rows(len(predictions), settings, seed)
    if len(rows):
        rival = shuffled_document(predictions, references, shuffles=settings.control_shuffles, seed=seed, rows=rows)
        own = {kind: values[rows] for kind, values in scores.items()}
        control = _compared(own, rival, settings, seed)
        control |= {"examples": len(rows), "shuffles": settings.control_shuffles}
        judgement.controls[SHUFFLED] = control
    if alone is not None:
        rival = rouge_scores([alone] * len(references), references)
        judgement.controls[ALONE] = _compared(scores, rival, settings, seed) | {"text": alone}
    if likelihoods:
        own = {"nll": likelihoods[OWN]}
        judgement.metrics |= _with_intervals(own, settings, seed, "test/")
        judgement.per_example |= own
        for name, control in judgement.controls.items():
            of = rows if name == SHUFFLED else np.arange(len(predictions))  # the examples that its ROUGE covers
            control |= _compared({"nll": own["nll"][of]}, {"nll": likelihoods[name][of]}, settings, seed)
    return judgement


def about_texts(predictions: Sequence[str], documents: Sequence[str]) -> dict[str, float]:
    """Describe summaries by what ROUGE does not show.

    Returns:
        ``words``: mean length. ``distinct_fraction``: distinct summaries among all. ``empty_fraction``: empty summaries
        among all. ``novel_bigram_fraction``: see ``novel_bigram_fraction``.
    """
    return {
        "words": _words(predictions),
        "distinct_fraction": len(set(predictions)) / len(predictions),
        "empty_fraction": sum(not text.strip() for text in predictions) / len(predictions),
        "novel_bigram_fraction": novel_bigram_fraction(predictions, documents),
    }


def novel_bigram_fraction(predictions: Sequence[str], documents: Sequence[str]) -> float:
    """Return the fraction of the summaries' word bigrams that are not in their documents: 0 is a pure copy."""
    novel = total = 0
    for prediction, document in zip(predictions, documents, strict=True):
        known = set(pairwise(re.findall(r"\w+", document.lower())))
        pairs = list(pairwise(re.findall(r"\w+", prediction.lower())))
        total += len(pairs)
        novel += sum(pair not in known for pair in pairs)
    return novel / total if total else 0.0


def _with_intervals(columns: Columns, settings: EvaluationSettings, seed: int, prefix: str = "") -> dict[str, Any]:
    """Return the mean of each column as ``NAME`` and its interval as ``NAME_ci``."""
    intervals = bootstrap_intervals(np.stack(list(columns.values()), axis=1), settings.bootstrap_samples, seed)
    means = {f"{prefix}{name}": float(values.mean()) for name, values in columns.items()}
    return means | {f"{prefix}{name}_ci": interval.tolist() for name, interval in zip(columns, intervals, strict=True)}


def _compared(own: Columns, rival: Columns, settings: EvaluationSettings, seed: int) -> dict[str, Any]:
    """Return the rival's scores, and the paired difference of the model's scores from them."""
    with np.errstate(invalid="ignore"):  # likelihoods may be infinite; the verdict reports that
        lead_over = {f"{kind}_difference": own[kind] - rival[kind] for kind in rival}
    return _with_intervals(rival | lead_over, settings, seed)


def _control_rows(n: int, settings: EvaluationSettings, seed: int) -> np.ndarray:
    wanted = n if settings.control_samples is None else min(settings.control_samples, n)
    if n < 2 or wanted < 1 or settings.control_shuffles < 1:
        return np.arange(0)
    return np.sort(np.random.default_rng(seed).choice(n, wanted, replace=False))


def _words(texts: Sequence[str]) -> float:
    return float(np.mean([len(text.split()) for text in texts]))
