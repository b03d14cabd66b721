"""The share of predictions that equal their reference, times 100; case counts, runs of blanks do not."""

import numpy as np

from warmstart.config.evaluation import EvaluationSettings
from warmstart.evaluation.columns import Columns
from warmstart.evaluation.metrics.metric import Metric, Texts, signed


def _score(texts: Texts, settings: EvaluationSettings) -> Columns:
    pairs = zip(texts.predictions, texts.references, strict=True)
    return {"exact_match": np.array([100.0 * (one.split() == other.split()) for one, other in pairs])}


def _signature(code: str, settings: EvaluationSettings) -> str:
    return signed("exact_match", "1", case="mixed", blanks="collapsed", lang=code)


METRIC = Metric(_score, _signature)
