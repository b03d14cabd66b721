"""The share of the summaries' n-grams that are not in their sources, times 100: 0 is a pure copy."""

from warmstart.config.evaluation import EvaluationSettings
from warmstart.evaluation.columns import Columns, ratio
from warmstart.evaluation.languages import words
from warmstart.evaluation.metrics.fragments import words_of
from warmstart.evaluation.metrics.metric import Metric, Texts, signed

LONGEST = 4


def ngrams(text: list[str], n: int) -> list[tuple[str, ...]]:
    """Return the n-grams of a text's words in their order."""
    return list(zip(*(text[i:] for i in range(n)), strict=False))


def _score(texts: Texts, settings: EvaluationSettings) -> Columns:
    split = [[words(text, texts.language) for text in side] for side in (texts.predictions, texts.documents)]
    pairs = list(zip(*split, strict=True))
    found: Columns = {}
    for n in range(1, LONGEST + 1):
        known = [set(ngrams(source, n)) for _, source in pairs]
        own = [ngrams(summary, n) for summary, _ in pairs]
        new = [sum(one not in source for one in grams) for grams, source in zip(own, known, strict=True)]
        found[f"novel_{n}grams"] = ratio(new, [len(grams) for grams in own])
    return found


def _signature(code: str, settings: EvaluationSettings) -> str:
    return signed("novel_ngrams", "1", tok=words_of(code), case="folded", lang=code)


METRIC = Metric(_score, _signature)
