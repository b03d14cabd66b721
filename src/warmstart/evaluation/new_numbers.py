"""Numbers in a summary that its source does not have: facts that the model, or the reference, adds."""

import re
from collections.abc import Sequence

import numpy as np

_THOUSANDS = re.compile(r"(?<=\d)[,\u00a0\u202f](?=\d{3}(?!\d))")  # 12,500 is 12500


def new_numbers(summary: str, document: str) -> set[str]:
    """Return the digit runs of a summary that are not digit runs of its document.

    Thousands separators are removed first. Numbers in words ("two") are not compared.
    """
    return _digit_runs(summary) - _digit_runs(document)


def have_new_numbers(summaries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
    """Return 1.0 for each summary (n,) with a number that its document lacks, else 0.0."""
    pairs = zip(summaries, documents, strict=True)
    return np.array([float(bool(new_numbers(summary, document))) for summary, document in pairs])


def _digit_runs(text: str) -> set[str]:
    return set(re.findall(r"\d+", _THOUSANDS.sub("", text)))
