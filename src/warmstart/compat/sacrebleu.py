"""Private APIs of sacrebleu, checked in 2.6.0.

Its public ``corpus_score`` returns no statistics of the examples, without which a score cannot be resampled or compared
pair by pair.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np


def statistics_of(metric: Any, predictions: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """Return the statistics of each example (n, k) that a metric sums.

    Uses ``Metric._extract_corpus_statistics``, as sacrebleu's own bootstrap does.

    Args:
        metric: sacrebleu's BLEU, CHRF or TER.
        predictions: The texts to score.
        references: One reference for each.
    """
    rows = metric._extract_corpus_statistics(list(predictions), [list(references)])
    return np.array(rows, dtype=np.float64).reshape(len(predictions), -1)


def score_of(metric: Any, sums: np.ndarray) -> float:
    """Return the score that sums of the statistics (k,) define; uses ``Metric._compute_score_from_stats``."""
    return float(metric._compute_score_from_stats(sums.tolist()).score)
