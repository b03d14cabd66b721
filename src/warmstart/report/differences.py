"""Compare any two rows on the examples that both have, with p-values corrected for the number of pairs.

Of twenty pairs without any difference, one has an uncorrected p-value below 0.05. After Holm's correction, at most 5 %
of pages show a difference by chance.
"""

from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from warmstart.config.metrics import metric_of
from warmstart.evaluation.bootstrap import FEWEST, bootstrap_intervals
from warmstart.evaluation.paired_tests import holm, paired_t_p
from warmstart.report.collect import SCORES
from warmstart.report.compare import RESAMPLES, SEED, Row, other_tokens


@dataclass
class Difference:
    """Row ``a`` minus row ``b``, on the examples that both have."""

    a: int
    b: int
    examples: int
    scores: dict[str, tuple[float, float | None, float | None]]
    """By score, the mean and both ends of its 95 % interval; None as ends for a single example."""
    left_out: str | None = None
    """Why the page does not compare likelihoods; None if it does, or if one row has none."""
    p: dict[str, float] = field(default_factory=dict)
    """By score, the p-value of the paired t-test over examples, after Holm's correction for all pairs that have this
    score. It is empty with fewer than ``FEWEST`` examples; such pairs are not counted."""


def differences(rows: list[Row]) -> list[Difference]:
    """Compare every pair of rows that have examples in common.

    Args:
        rows: All rows that can be compared, which the correction is for.
    """
    scores = [{kind: row.scores(kind) for kind in SCORES} for row in rows]
    not_finite = [row.not_finite("nll") for row in rows]
    found = []
    for a, b in combinations(range(len(rows)), 2):
        ids = sorted(_scored(scores[a]) & _scored(scores[b]))
        ids = [i for i in ids if rows[a].texts(i) == rows[b].texts(i)]
        why = None
        if all(scores[one]["nll"] or not_finite[one] for one in (a, b)):  # a baseline has no likelihoods
            broken = [rows[one].label for one in (a, b) if not_finite[one]]
            why = _not_finite(broken) if broken else other_tokens(rows[a], rows[b])
        kinds = [k for k in SCORES if all(i in scores[a][k] and i in scores[b][k] for i in ids)]
        kinds = [k for k in kinds if k != "nll" or why is None]
        if otherwise := {k: metric for k in kinds if (metric := _signed_otherwise(rows[a], rows[b], k))}:
            kinds = [k for k in kinds if k not in otherwise]
            why = " ".join([*filter(None, [why]), *map(_omitted, sorted(set(otherwise.values())))])
        if not ids or (not kinds and not otherwise):
            continue
        values_nk = np.array([[scores[a][k][i] - scores[b][k][i] for k in kinds] for i in ids])
        intervals = bootstrap_intervals(values_nk, RESAMPLES, SEED)
        by_kind: dict[str, tuple[float, float | None, float | None]] = {}
        for kind, values, (low, high) in zip(kinds, values_nk.T, intervals, strict=True):
            ends = (float(low), float(high)) if len(ids) > 1 else (None, None)
            by_kind[kind] = (float(values.mean()), *ends)
        p = {k: paired_t_p(column) for k, column in zip(kinds, values_nk.T, strict=True)} if len(ids) >= FEWEST else {}
        found.append(Difference(a, b, len(ids), by_kind, why, p))
    for kind in SCORES:
        tested = [one for one in found if kind in one.p]
        for one, corrected in zip(tested, holm([one.p[kind] for one in tested]), strict=True):
            one.p[kind] = corrected
    return found


def _signed_otherwise(a: Row, b: Row, kind: str) -> str | None:
    """Return the metric of a score if the runs of two rows computed it in different ways; None if not, or not known."""
    metric = metric_of(kind)
    signed = [
        {text for run in row.runs for text in run.signatures if text.partition("|")[0] == metric} for row in (a, b)
    ]
    return metric if all(signed) and len(set.union(*signed)) > 1 else None


def _omitted(metric: str) -> str:
    return (
        f"{metric} is omitted: it was computed in different ways (its signatures differ). Evaluate both rows with the "
        "same data.language, evaluation options and release."
    )


def _scored(scores: dict[str, dict[str, float]]) -> set[str]:
    """Return the ids of the examples that have scores."""
    return {i for of_kind in scores.values() for i in of_kind}


def _not_finite(labels: list[str]) -> str:
    return f"nats/token is omitted: not all likelihoods of {' and '.join(labels)} are finite."
