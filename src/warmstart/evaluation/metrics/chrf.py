"""Corpus chrF2 (Popovic 2015) by sacrebleu: character n-grams, so it needs no tokenizer."""

from sacrebleu.metrics.chrf import CHRF

from warmstart.compat.sacrebleu import score_of, statistics_of
from warmstart.config.evaluation import EvaluationSettings
from warmstart.evaluation.columns import Columns, Statistics
from warmstart.evaluation.metrics.metric import Metric, Texts

_CHRF = CHRF()
_CHRF.num_refs = 1


def _score(texts: Texts, settings: EvaluationSettings) -> Columns:
    rows_nk = statistics_of(_CHRF, texts.predictions, texts.references)
    return {"chrf": Statistics(rows_nk, lambda sums: score_of(_CHRF, sums))}


def _signature(code: str, settings: EvaluationSettings) -> str:
    return f"chrf|lang:{code}|{_CHRF.get_signature().format()}"


METRIC = Metric(_score, _signature)
