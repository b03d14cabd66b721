"""Score the rows again with a metric that only a whole split has, such as BLEU, so that pairs of rows can be tested.

A run stores such a score without the statistics of its examples, but with the texts that define them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from warmstart.config.evaluation import EvaluationSettings
from warmstart.config.metrics import metric_of
from warmstart.errors import UserError
from warmstart.evaluation.bootstrap import resampled_scores
from warmstart.evaluation.columns import Column, Statistics, mean
from warmstart.evaluation.columns import rows as rows_at
from warmstart.report.compare import RESAMPLES, SEED, Row


@dataclass
class CorpusScore:
    """A score of a row that its examples define only together; the mean over the row's seeds."""

    kind: str
    """Name of the score, such as ``bleu``."""
    signature: str
    """What decides it."""
    ids: list[str]
    """The examples that all seeds have."""
    columns: list[Column]
    """Statistics of these examples, for each seed."""

    def of(self, ids: Sequence[str]) -> tuple[float, np.ndarray]:
        """Return the score of some of the examples, and the same in each bootstrap resample of them (m,).

        Args:
            ids: Two or more of ``ids``. Rows with the same ones get the same resamples.
        """
        chosen = tuple(ids)
        if chosen not in self._found:
            at = np.array([self._index[i] for i in chosen])
            columns = [rows_at(column, at) for column in self.columns]
            drawn = [
                resampled_scores(column.rows_nk, column.score, RESAMPLES, SEED)
                for column in columns
                if isinstance(column, Statistics)
            ]
            self._found[chosen] = float(np.mean([mean(column) for column in columns])), np.mean(drawn, axis=0)
        return self._found[chosen]

    @cached_property
    def _index(self) -> dict[str, int]:
        return {one: i for i, one in enumerate(self.ids)}

    @cached_property
    def _found(self) -> dict[tuple[str, ...], tuple[float, np.ndarray]]:
        return {}


def corpus_score(row: Row, kind: str, of: Row | None = None) -> CorpusScore | None:
    """Score a row again.

    Args:
        row: A row of runs, or a baseline.
        kind: The score.
        of: The row that a baseline belongs to.

    Returns:
        The score; None if single examples have it, if this release would compute it otherwise than the runs did, or if
        the texts are not stored.
    """
    # Loaded late: most pages need no metric.
    from warmstart.evaluation.metrics import scorer_of

    metric, runs = metric_of(kind), row.runs
    signed = {text for run in (of or row).runs for text in run.signatures if text.partition("|")[0] == metric}
    if metric is None or len(signed) != 1 or any(kind in one for run in runs for one in run.examples.values()):
        return None
    language = (of or row).runs[0].choices.get("data.language", "en")
    try:
        scorer = scorer_of(replace(EvaluationSettings(), metrics=[metric]), language)
    except UserError:  # what it needs is not installed here
        return None
    if set(scorer.signatures.values()) != signed:
        return None
    ids = [i for i in sorted(set.intersection(*(set(run.examples) for run in runs))) if row.has_one_example(i)]
    columns = []
    for run in runs if ids else []:
        texts = [[run.examples[i].get(name) for i in ids] for name in ("prediction", "reference", "document")]
        if not all(isinstance(text, str) for of_kind in texts for text in of_kind):
            return None
        columns.append(scorer(*texts)[kind])  # type: ignore[arg-type]
    is_whole = bool(columns) and all(isinstance(column, Statistics) for column in columns)
    return CorpusScore(kind, signed.pop(), ids, columns) if is_whole else None
