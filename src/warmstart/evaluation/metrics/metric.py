"""What every metric is: a function from texts to scores, and a signature that says exactly how it scores."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from warmstart.config.evaluation import EvaluationSettings
from warmstart.evaluation.columns import Columns


@dataclass(frozen=True)
class Texts:
    """Texts to score; all three have the same length n and order."""

    predictions: Sequence[str]
    references: Sequence[str]
    documents: Sequence[str]
    language: str = "en"
    """ISO code of the predictions and references, and of the documents unless the model translates."""


def _serves_all(language: str) -> str | None:
    return None


@dataclass(frozen=True)
class Metric:
    """A metric."""

    score: Callable[[Texts, EvaluationSettings], Columns]
    """Returns the scores that ``warmstart.config.metrics`` lists for it."""
    signature: Callable[[str, EvaluationSettings], str]
    """Returns, for a language, all that decides a score: see ``signed``."""
    reason_against: Callable[[str], str | None] = _serves_all
    """Returns why it cannot serve a language, and what to do; None if it can."""


def signed(name: str, version: str, **parts: object) -> str:
    """Return a signature in sacrebleu's form: ``rouge|tok:rouge-score|lang:en|version:…``."""
    return "|".join([name, *(f"{key}:{value}" for key, value in parts.items()), f"version:{version}"])
