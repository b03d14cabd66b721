"""SARI (Xu et al. 2016) for each example, times 100: n-grams that are rightly kept, deleted and added.

The definition is that of the paper's own program, which gives the values of the paper's example
(tests/evaluation/metrics/test_sari.py): ratios are averaged over distinct n-grams, and 0/0 is 0. Later programs differ
in both points. Words are those of sacrebleu's tokenizer in lower case.
"""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
from sacrebleu.metrics.bleu import BLEU

from warmstart.config.evaluation import EvaluationSettings
from warmstart.evaluation.columns import Columns
from warmstart.evaluation.metrics.bleu import lacks_tokenizer, tokenizer_name
from warmstart.evaluation.metrics.metric import Metric, Texts, signed

LONGEST = 4  # words of an n-gram
NGrams = Counter[tuple[str, ...]]


def sari(source: Sequence[str], prediction: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Return the SARI of a prediction, from 0 to 1.

    Args:
        source: Words of the text that was simplified.
        prediction: Words of the simplified text.
        references: Words of each reference.
    """
    operations = [
        _operations(_ngrams(source, n), _ngrams(prediction, n), [_ngrams(words, n) for words in references])
        for n in range(1, LONGEST + 1)
    ]
    return float(np.mean(operations))


def _ngrams(words: Sequence[str], n: int) -> NGrams:
    return Counter(zip(*(words[i:] for i in range(n)), strict=False))


def _operations(source: NGrams, prediction: NGrams, references: Sequence[NGrams]) -> tuple[float, float, float]:
    """Return the F1 of keeping, the precision of deleting and the F1 of adding."""
    wanted: NGrams = sum(references, Counter())
    before, after = _repeated(source, len(references)), _repeated(prediction, len(references))
    kept, to_keep = before & after, before & wanted
    keep = _f1(_mean_share(kept & wanted, kept), _mean_share(kept & wanted, to_keep))
    deleted = before - after
    delete = _mean_share(deleted - wanted, deleted)
    added, to_add = set(prediction) - set(source), set(wanted) - set(source)
    right = len(added & set(wanted))
    add = _f1(right / len(added) if added else 0.0, right / len(to_add) if to_add else 0.0)
    return keep, delete, add


def _repeated(counts: NGrams, times: int) -> NGrams:
    return Counter({ngram: times * n for ngram, n in counts.items()})


def _mean_share(good: NGrams, every: NGrams) -> float:
    return sum(n / every[ngram] for ngram, n in good.items()) / len(every) if every else 0.0


def _f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@cache
def _tokenizer(code: str) -> Any:
    untyped: Any = BLEU(tokenize=tokenizer_name(code), force=True)
    return untyped.tokenizer


def _score(texts: Texts, settings: EvaluationSettings) -> Columns:
    tokenize = _tokenizer(texts.language)

    def words(text: str) -> list[str]:
        split: list[str] = tokenize(text.lower()).split()
        return split

    rows = zip(texts.documents, texts.predictions, texts.references, strict=True)
    return {"sari": np.array([100 * sari(words(source), words(own), [words(other)]) for source, own, other in rows])}


def _signature(code: str, settings: EvaluationSettings) -> str:
    parts = {"case": "lc", "tok": tokenizer_name(code), "definition": "xu-2016", "lang": code}
    return signed("sari", f"1-sacrebleu-{version('sacrebleu')}", **parts)


METRIC = Metric(_score, _signature, lacks_tokenizer)
