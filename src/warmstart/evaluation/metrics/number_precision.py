"""The share of numbers in summaries that their sources have, times 100, and which summaries have others.

The other numbers are facts that the model, or the reference, adds.
"""

import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from warmstart.config.evaluation import EvaluationSettings
from warmstart.evaluation.columns import Columns, ratio
from warmstart.evaluation.metrics.metric import Metric, Texts, signed

_THOUSANDS = re.compile(r"(?<=\d)[.,\u00a0\u202f\u066c](?=\d{3}(?!\d))")  # 12,500 and 12.500 are 12500


def new_numbers(summary: str, document: str) -> set[str]:
    """Return the digit runs of a summary that are not digit runs of its document.

    Thousands separators are removed first: also a point or comma before exactly three digits, in any language. The two
    sides of a decimal separator are runs of their own, so 3.5 equals 3,5. Digits of all scripts are equal. Numbers in
    words ("two") are not compared.
    """
    return _digit_runs(summary) - _digit_runs(document)


def have_new_numbers(summaries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
    """Return 1.0 for each summary (n,) with a number that its document lacks, else 0.0."""
    pairs = zip(summaries, documents, strict=True)
    return np.array([float(bool(new_numbers(summary, document))) for summary, document in pairs])


def _digit_runs(text: str) -> set[str]:
    found = re.findall(r"\d+", _THOUSANDS.sub("", text))
    return {run if run.isascii() else "".join(str(unicodedata.decimal(digit)) for digit in run) for run in found}


def _score(texts: Texts, settings: EvaluationSettings) -> Columns:
    found = [len(_digit_runs(text)) for text in texts.predictions]
    new = [len(new_numbers(*pair)) for pair in zip(texts.predictions, texts.documents, strict=True)]
    return {"number_precision": ratio(np.subtract(found, new).tolist(), found)}


def _signature(code: str, settings: EvaluationSettings) -> str:
    return signed("number_precision", "2", numbers="digit-runs", lang=code)


METRIC = Metric(_score, _signature)
