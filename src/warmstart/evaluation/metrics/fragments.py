"""Coverage and density of the extractive fragments of a summary (Grusky et al. 2018), for each example.

A fragment is a longest run of words that the source has too. Coverage is the share of a summary's words that are in
fragments; density is the mean length of the fragment that a word is in. An empty summary has 0 of both.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from warmstart.config.evaluation import EvaluationSettings
from warmstart.evaluation.columns import Columns
from warmstart.evaluation.languages import language, words
from warmstart.evaluation.metrics.metric import Metric, Texts, signed


def fragment_lengths(summary: Sequence[str], source: Sequence[str]) -> list[int]:
    """Return the lengths of the extractive fragments, found greedily from the start of the summary."""
    positions = defaultdict(list)
    for j, word in enumerate(source):
        positions[word].append(j)
    lengths, i = [], 0
    while i < len(summary):
        longest = 0
        for j in positions.get(summary[i], ()):
            length = 0
            while i + length < len(summary) and j + length < len(source) and summary[i + length] == source[j + length]:
                length += 1
            longest = max(longest, length)
        if longest:
            lengths.append(longest)
        i += max(longest, 1)
    return lengths


def _score(texts: Texts, settings: EvaluationSettings) -> Columns:
    coverage, density = [], []
    for prediction, document in zip(texts.predictions, texts.documents, strict=True):
        own = words(prediction, texts.language)
        lengths = np.array(fragment_lengths(own, words(document, texts.language)))
        coverage.append(float(lengths.sum() / max(len(own), 1)))
        density.append(float((lengths**2).sum() / max(len(own), 1)))
    return {"coverage": np.array(coverage), "density": np.array(density)}


def _signature(code: str, settings: EvaluationSettings) -> str:
    return signed("fragments", "1", tok=words_of(code), case="folded", lang=code)


def words_of(code: str) -> str:
    """Return the name of the tokenizer by which ``words`` splits a language."""
    tokenizer = language(code).tokenizer
    return "unicode-v1" if tokenizer == "rouge-score" else tokenizer


METRIC = Metric(_score, _signature)
