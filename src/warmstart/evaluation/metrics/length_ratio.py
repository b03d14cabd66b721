"""Words of all predictions divided by words of all references."""

from warmstart.config.evaluation import EvaluationSettings
from warmstart.evaluation.columns import Columns, ratio
from warmstart.evaluation.languages import words
from warmstart.evaluation.metrics.fragments import words_of
from warmstart.evaluation.metrics.metric import Metric, Texts, signed


def _score(texts: Texts, settings: EvaluationSettings) -> Columns:
    own, wanted = ([len(words(t, texts.language)) for t in side] for side in (texts.predictions, texts.references))
    return {"length_ratio": ratio(own, wanted, scale=1.0)}


def _signature(code: str, settings: EvaluationSettings) -> str:
    return signed("length_ratio", "1", tok=words_of(code), lang=code)


METRIC = Metric(_score, _signature)
