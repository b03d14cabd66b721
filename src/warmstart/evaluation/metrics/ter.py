"""Corpus TER (Snover et al. 2006) by sacrebleu: edits and shifts per reference word, times 100; lower is better."""

from typing import Any

from sacrebleu.metrics.ter import TER

from warmstart.compat.sacrebleu import score_of, statistics_of
from warmstart.config.evaluation import EvaluationSettings
from warmstart.evaluation.columns import Columns, Statistics
from warmstart.evaluation.languages import UNSPACED
from warmstart.evaluation.metrics.metric import Metric, Texts


def _ter(code: str) -> Any:
    # Its normalization puts blanks around Chinese characters and kana.
    unspaced = code in UNSPACED
    metric = TER(normalized=unspaced, asian_support=unspaced)
    metric.num_refs = 1
    return metric


def _score(texts: Texts, settings: EvaluationSettings) -> Columns:
    metric = _ter(texts.language)
    rows_nk = statistics_of(metric, texts.predictions, texts.references)
    return {"ter": Statistics(rows_nk, lambda sums: score_of(metric, sums))}


def _signature(code: str, settings: EvaluationSettings) -> str:
    return f"ter|lang:{code}|{_ter(code).get_signature().format()}"


def _reason_against(code: str) -> str | None:
    if code in UNSPACED - {"zh", "yue", "wuu", "ja"}:
        return f"TER counts words, and sacrebleu's cannot separate those of data.language={code}."
    return None


METRIC = Metric(_score, _signature, _reason_against)
