"""The judgement of a run: its scores with intervals, compared with the baselines and the controls.

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
from warmstart.evaluation.baselines import MOST_TRAINING_EXAMPLES, NOT_OF_DOCUMENTS, OF_TRAINING, Pair, baseline_texts
from warmstart.evaluation.columns import Columns, minus, with_intervals
from warmstart.evaluation.columns import rows as rows_of
from warmstart.evaluation.controls import shuffled_document
from warmstart.evaluation.languages import words
from warmstart.evaluation.likelihood import ALONE, BITS_PER_BYTE, OWN, SHUFFLED
from warmstart.evaluation.metrics import scorer_of
from warmstart.evaluation.metrics.number_precision import have_new_numbers


@dataclass
class Judgement:
    """The scores of a run; ``metrics``, ``baselines`` and ``controls`` as in result.json."""

    metrics: dict[str, Any]
    """The model's means and intervals, such as ``test/rouge1`` and ``test/rouge1_ci``; the prefix is the split."""
    baselines: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By baseline: its means, and the paired differences of the model from it."""
    controls: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By control: its means, and the paired differences of the model from it."""
    per_example: dict[str, np.ndarray] = field(default_factory=dict)
    """Values of each example (n,): the model's scores as ``rouge1``, a baseline's as ``lead1/rouge1``, and
    ``new_number``, which is 1 if the summary has a number that its document lacks. Scores that only the whole split
    has, such as BLEU, are not among them."""
    texts: dict[str, list[str]] = field(default_factory=dict)
    """By baseline, its texts, if they cannot be made again from the documents."""
    signatures: list[str] = field(default_factory=list)
    """What decides the scores of each metric, in the order of ``evaluation.metrics``."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Why a metric of ``evaluation.metrics`` is left out, by its name."""


def judge(
    predictions: Sequence[str],
    references: Sequence[str],
    documents: Sequence[str],
    settings: EvaluationSettings,
    seed: int,
    *,
    baselines: Sequence[str] = ("lead",),
    training: Sequence[Pair] = (),
    likelihoods: dict[str, np.ndarray] | None = None,
    bits_per_byte: np.ndarray | None = None,
    alone: str | None = None,
    language: str = "en",
    split: str = "test",
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
        bits_per_byte: Bits per byte of each reference, see there; NaN for a reference without a value. If a likelihood
            of a reference is NaN, so is the mean.
        alone: The text that the decoder generates without a source.
        language: ISO code of the texts' language.
        split: Name of the split, which is the prefix of ``metrics``.

    Raises:
        UserError: There are no examples, or no metric serves the language.
        ValueError: The numbers of predictions, references and documents differ.
    """
    if not predictions:
        raise UserError(
            f"The {split} split has no examples, so nothing can be scored. Check data.{split}_path and "
            f"data.limit_{split}."
        )
    if not len(predictions) == len(references) == len(documents):
        raise ValueError(f"{len(predictions)} predictions, {len(references)} references, {len(documents)} documents.")
    scorer = scorer_of(settings, language)
    scores = scorer(predictions, references, documents)
    judgement = Judgement(
        _with_intervals(scores, settings, seed, f"{split}/"),
        per_example=_values(scores),
        signatures=list(scorer.signatures.values()),
        left_out=scorer.left_out,
    )
    described = about_texts(predictions, documents, language)
    judgement.metrics |= {f"{split}/{name}": value for name, value in described.items()}
    judgement.metrics[f"{split}/reference_words"] = _words(references, language)
    judgement.per_example["new_number"] = have_new_numbers(predictions, documents)
    judgement.metrics[f"{split}/new_number_fraction"] = float(judgement.per_example["new_number"].mean())
    judgement.metrics[f"{split}/reference_new_number_fraction"] = float(have_new_numbers(references, documents).mean())
    judgement.metrics[f"{split}/examples"] = len(predictions)

    lead_sentences = settings.lead_sentences
    found = baseline_texts(
        baselines, documents, training, references=references, lead_sentences=lead_sentences, language=language
    )
    for name, texts in found.items():
        rival = scorer(texts, references, documents)
        judgement.baselines[name] = _compared(scores, rival, settings, seed)
        judgement.per_example |= {f"{name}/{kind}": values for kind, values in _values(rival).items()}
        if name in OF_TRAINING:
            judgement.baselines[name]["training_examples"] = min(len(training), MOST_TRAINING_EXAMPLES)
        if name in NOT_OF_DOCUMENTS:
            judgement.texts[name] = texts
    rows = _control_rows(len(predictions), settings, seed)
    if len(rows):
        shuffles = settings.control_shuffles
        rival = shuffled_document(
            predictions, references, documents, score=scorer, shuffles=shuffles, seed=seed, rows=rows
        )
        own = {kind: rows_of(column, rows) for kind, column in scores.items()}
        control = _compared(own, rival, settings, seed)
        control |= {"examples": len(rows), "shuffles": shuffles}
        judgement.controls[SHUFFLED] = control
    if alone is not None:
        rival = scorer([alone] * len(references), references, documents)
        judgement.controls[ALONE] = _compared(scores, rival, settings, seed) | {"text": alone}
    if likelihoods:
        nats: Columns = {"nll": likelihoods[OWN]}
        judgement.metrics |= _with_intervals(nats, settings, seed, f"{split}/")
        judgement.per_example |= _values(nats)
        for name, control in judgement.controls.items():
            if name not in likelihoods:  # of a model that selects sentences
                continue
            of = rows if name == SHUFFLED else np.arange(len(predictions))  # the examples that its scores cover
            own = {"nll": likelihoods[OWN][of]}
            control |= _compared(own, {"nll": likelihoods[name][of]}, settings, seed)
    # Without its likelihoods that are NaN, the mean would be that of the others, as if they were all.
    is_broken = likelihoods is not None and np.isnan(likelihoods[OWN]).any()
    if bits_per_byte is not None and ((kept := ~np.isnan(bits_per_byte)).any() or is_broken):
        bits = np.full(1, np.nan) if is_broken else bits_per_byte[kept]
        judgement.metrics |= _with_intervals({BITS_PER_BYTE: bits}, settings, seed, f"{split}/")
        judgement.metrics[f"{split}/{BITS_PER_BYTE}_examples"] = int(kept.sum())
        judgement.per_example[BITS_PER_BYTE] = bits_per_byte
    return judgement


def about_texts(predictions: Sequence[str], documents: Sequence[str], language: str = "en") -> dict[str, float]:
    """Describe summaries by what ROUGE does not show.

    Args:
        predictions: The summaries.
        documents: Their documents.
        language: ISO code of their language.

    Returns:
        ``words``: mean length. ``distinct_fraction``: distinct summaries among all. ``empty_fraction``: empty summaries
        among all. ``novel_bigram_fraction``: see ``novel_bigram_fraction``.
    """
    return {
        "words": _words(predictions, language),
        "distinct_fraction": len(set(predictions)) / len(predictions),
        "empty_fraction": sum(not text.strip() for text in predictions) / len(predictions),
        "novel_bigram_fraction": novel_bigram_fraction(predictions, documents, language),
    }


def novel_bigram_fraction(predictions: Sequence[str], documents: Sequence[str], language: str = "en") -> float:
    """Return the fraction of the summaries' word bigrams that are not in their documents: 0 is a pure copy."""
    novel = total = 0
    for prediction, document in zip(predictions, documents, strict=True):
        known = set(pairwise(_terms(document, language)))
        pairs = list(pairwise(_terms(prediction, language)))
        total += len(pairs)
        novel += sum(pair not in known for pair in pairs)
    return novel / total if total else 0.0


def _terms(text: str, language: str) -> list[str]:
    return re.findall(r"\w+", text.lower()) if language == "en" else words(text, language)


def _values(columns: Columns) -> dict[str, np.ndarray]:
    """Return the scores that each example has."""
    return {name: column for name, column in columns.items() if isinstance(column, np.ndarray)}


def _with_intervals(columns: Columns, settings: EvaluationSettings, seed: int, prefix: str = "") -> dict[str, Any]:
    """Return each score as ``NAME`` and its interval as ``NAME_ci``."""
    return with_intervals(columns, settings.bootstrap_samples, seed, prefix)


def _compared(own: Columns, rival: Columns, settings: EvaluationSettings, seed: int) -> dict[str, Any]:
    """Return the rival's scores, and the paired difference of the model's scores from them."""
    with np.errstate(invalid="ignore"):  # likelihoods may be infinite; the verdict reports that
        lead_over = {f"{kind}_difference": minus(own[kind], rival[kind]) for kind in rival}
    return _with_intervals(rival | lead_over, settings, seed)


def _control_rows(n: int, settings: EvaluationSettings, seed: int) -> np.ndarray:
    wanted = n if settings.control_samples is None else min(settings.control_samples, n)
    if n < 2 or wanted < 1 or settings.control_shuffles < 1:
        return np.arange(0)
    return np.sort(np.random.default_rng(seed).choice(n, wanted, replace=False))


def _words(texts: Sequence[str], language: str) -> float:
    counts = [len(text.split() if language == "en" else words(text, language)) for text in texts]
    return float(np.mean(counts))
