"""Metrics by name: the file ``NAME.py`` defines ``METRIC``, and ``warmstart.config.metrics`` lists its scores.

scorer = scorer_of(settings.evaluation, "de")
columns = scorer(predictions, references, documents)
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from warmstart.config.evaluation import EvaluationSettings
from warmstart.config.metrics import METRICS, primary_score
from warmstart.errors import UserError
from warmstart.evaluation.columns import Columns
from warmstart.evaluation.metrics.metric import Metric, Texts


@dataclass(frozen=True)
class Scorer:
    """The metrics of a run that serve its language; called with texts, it returns all scores by name."""

    settings: EvaluationSettings
    language: str
    metrics: dict[str, Metric]
    left_out: dict[str, str]
    """Why a requested metric is left out, by its name."""

    @property
    def signatures(self) -> dict[str, str]:
        """By metric, what decides its scores."""
        return {name: metric.signature(self.language, self.settings) for name, metric in self.metrics.items()}

    @property
    def primary(self) -> str:
        """The score that verdicts use."""
        return primary_score(list(self.metrics))

    def __call__(self, predictions: Sequence[str], references: Sequence[str], documents: Sequence[str]) -> Columns:
        """Score predictions.

        Raises:
            ValueError: The numbers of texts differ.
        """
        if not len(predictions) == len(references) == len(documents):
            raise ValueError(
                f"{len(predictions)} predictions, {len(references)} references and {len(documents)} documents cannot "
                "be scored together."
            )
        if self.language != "en":  # a letter with its mark may be one character or two
            predictions, references, documents = map(_composed, (predictions, references, documents))
        texts = Texts(predictions, references, documents, self.language)
        return {k: v for metric in self.metrics.values() for k, v in metric.score(texts, self.settings).items()}


def _composed(texts: Sequence[str]) -> list[str]:
    return [unicodedata.normalize("NFC", text) for text in texts]


def metric_named(name: str) -> Metric:
    """Import a metric.

    Args:
        name: One of ``METRICS``.
    """
    metric: Metric = import_module(f"{__name__}.{name}").METRIC
    return metric


def scorer_of(settings: EvaluationSettings, language: str) -> Scorer:
    """Return the metrics of ``evaluation.metrics`` that serve a language.

    Raises:
        UserError: None of them serves it, or those that do cannot say what is better.
    """
    metrics, left_out = {}, {}
    for name in dict.fromkeys(settings.metrics):
        metric = metric_named(name)
        if reason := metric.reason_against(language):
            left_out[name] = reason
        else:
            metrics[name] = metric
    try:
        primary_score(list(metrics))
    except ValueError:
        reasons = " ".join(left_out.values())
        raise UserError(
            f"evaluation.metrics={settings.metrics} compares nothing in data.language={language}. {reasons} Add a "
            f"metric that serves it, such as {'rouge' if 'rouge' not in left_out else next(iter(METRICS))}."
        ) from None
    return Scorer(settings, language, metrics, left_out)
