"""Compare any two rows on the examples that both have, with p-values corrected for the number of pairs.

Of twenty pairs without any difference, one has an uncorrected p-value below 0.05. After Holm's correction, at most 5 %
of pages show a difference by chance.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from warmstart.config.metrics import metric_of
from warmstart.evaluation.bootstrap import FEWEST, PERCENTILES, bootstrap_intervals
from warmstart.evaluation.paired_tests import holm, paired_t_p, resampled_t_p
from warmstart.report.collect import BITS_PER_BYTE, SCORES
from warmstart.report.compare import RESAMPLES, SEED, Row, other_tokens
from warmstart.report.corpus_scores import CorpusScore


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
    """By score, the p-value of the paired t-test over examples, or ``resampled_t_p`` of a score of the whole split;
    after Holm's correction for all pairs that have this score. It is empty with fewer than ``FEWEST`` examples, and if
    a row is an upper bound; such pairs are not counted."""


def differences(rows: list[Row], corpus: Sequence[CorpusScore | None] = ()) -> list[Difference]:
    """Compare every pair of rows that have examples in common.

    Args:
        rows: All rows that can be compared, which the correction is for.
        corpus: For each row, the score that its examples define only together; None for a row without it. By default no
            row has one.
    """
    wholes = corpus or [None] * len(rows)
    scores = [{kind: row.scores(kind) for kind in SCORES} for row in rows]
    not_finite = [row.not_finite("nll") for row in rows]
    found = []
    for a, b in combinations(range(len(rows)), 2):
        first, second = wholes[a], wholes[b]
        ids = sorted(_scored(scores[a]) & _scored(scores[b]) or _ids(first) & _ids(second))
        ids = [i for i in ids if rows[a].texts(i) == rows[b].texts(i)]
        why = None
        if all(scores[one]["nll"] or not_finite[one] for one in (a, b)):  # a baseline has no likelihoods
            broken = [rows[one].label for one in (a, b) if not_finite[one]]
            why = _not_finite(broken) if broken else other_tokens(rows[a], rows[b])
        of_bytes, bytes_p = _of_bytes(scores[a], scores[b], ids) if other_tokens(rows[a], rows[b]) else ({}, {})
        if of_bytes and (kept := len(_kept(scores[a], scores[b], ids))) < len(ids):
            why = f"{why or ''} bits/byte is over the {kept} references that both tokenizers keep whole.".strip()
        kinds = [k for k in SCORES if k != BITS_PER_BYTE and all(i in scores[a][k] and i in scores[b][k] for i in ids)]
        kinds = [k for k in kinds if k != "nll" or why is None]
        if otherwise := {k: metric for k in kinds if (metric := _signed_otherwise(rows[a], rows[b], k))}:
            kinds = [k for k in kinds if k not in otherwise]
            why = " ".join([*filter(None, [why]), *map(_omitted, sorted(set(otherwise.values())))])
        whole, whole_p = _of_corpus(first, second, ids)
        if first and second and first.signature != second.signature:
            why = " ".join([*filter(None, [why]), _omitted(str(metric_of(first.kind)))])
        if not ids or not (kinds or otherwise or whole or of_bytes):
            continue
        values_nk = np.array([[scores[a][k][i] - scores[b][k][i] for k in kinds] for i in ids])
        intervals = bootstrap_intervals(values_nk, RESAMPLES, SEED)
        by_kind: dict[str, tuple[float, float | None, float | None]] = {}
        for kind, values, (low, high) in zip(kinds, values_nk.T, intervals, strict=True):
            ends = (float(low), float(high)) if len(ids) > 1 else (None, None)
            by_kind[kind] = (float(values.mean()), *ends)
        p = {k: paired_t_p(column) for k, column in zip(kinds, values_nk.T, strict=True)} if len(ids) >= FEWEST else {}
        tests = {} if rows[a].is_upper_bound or rows[b].is_upper_bound else whole_p | p | bytes_p
        found.append(Difference(a, b, len(ids), whole | by_kind | of_bytes, why, tests))
    for kind in SCORES:
        tested = [one for one in found if kind in one.p]
        for one, corrected in zip(tested, holm([one.p[kind] for one in tested]), strict=True):
            one.p[kind] = corrected
    return found


def _kept(a: dict[str, dict[str, float]], b: dict[str, dict[str, float]], ids: list[str]) -> list[str]:
    return [i for i in ids if i in a[BITS_PER_BYTE] and i in b[BITS_PER_BYTE]]


def _of_bytes(
    a: dict[str, dict[str, float]], b: dict[str, dict[str, float]], ids: list[str]
) -> tuple[dict[str, tuple[float, float | None, float | None]], dict[str, float]]:
    """Return the difference in bits per byte, and its p-value, over the references that both tokenizers keep whole."""
    kept = _kept(a, b, ids)
    if not kept:
        return {}, {}
    values_n = np.array([a[BITS_PER_BYTE][i] - b[BITS_PER_BYTE][i] for i in kept])
    ((low, high),) = bootstrap_intervals(values_n[:, None], RESAMPLES, SEED)
    ends = (float(low), float(high)) if len(kept) > 1 else (None, None)
    p = {BITS_PER_BYTE: paired_t_p(values_n)} if len(kept) >= FEWEST else {}
    return {BITS_PER_BYTE: (float(values_n.mean()), *ends)}, p


def _of_corpus(
    a: CorpusScore | None, b: CorpusScore | None, ids: list[str]
) -> tuple[dict[str, tuple[float, float | None, float | None]], dict[str, float]]:
    """Return the difference of a score that examples define only together, and its p-value, as in ``Difference``."""
    if a is None or b is None or a.signature != b.signature or not ids or not set(ids) <= _ids(a) & _ids(b):
        return {}, {}
    (first, resampled_a_M), (second, resampled_b_M) = a.of(ids), b.of(ids)
    difference, resampled_M = first - second, resampled_a_M - resampled_b_M
    if not (np.isfinite(difference) and np.isfinite(resampled_M).all()):
        return {}, {}
    low, high = (float(end) for end in np.percentile(resampled_M, PERCENTILES))
    ends = (low, high) if len(ids) > 1 else (None, None)
    p = {a.kind: resampled_t_p(difference, resampled_M, len(ids))} if len(ids) >= FEWEST else {}
    return {a.kind: (difference, *ends)}, p


def _ids(of: CorpusScore | None) -> set[str]:
    return set(of.ids) if of else set()


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
