"""The share of the summaries' three-word sequences that occurred before in the same summary, times 100."""

from warmstart.config.evaluation import EvaluationSettings
from warmstart.evaluation.columns import Columns, ratio
from warmstart.evaluation.languages import words
from warmstart.evaluation.metrics.fragments import words_of
from warmstart.evaluation.metrics.metric import Metric, Texts, signed
from warmstart.evaluation.metrics.novel_ngrams import ngrams


def _score(texts: Texts, settings: EvaluationSettings) -> Columns:
    own = [ngrams(words(text, texts.language), 3) for text in texts.predictions]
    return {"repeated_3grams": ratio([len(one) - len(set(one)) for one in own], [len(one) for one in own])}


def _signature(code: str, settings: EvaluationSettings) -> str:
    return signed("repetition", "1", tok=words_of(code), case="folded", lang=code)


METRIC = Metric(_score, _signature)
