"""What runs say together: seeds put together into rows, and the difference of any two rows with its interval.

A row's score of an example is the mean over its seeds; intervals are from a bootstrap over examples (Koehn 2004), and
that of a difference is paired: both rows on the same examples. The deviation between seeds stands apart from that,
for it is another question: how far another seed would move the mean.
"""

import statistics
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from warmstart.evaluation.baselines import lead
from warmstart.evaluation.intervals import bootstrap_intervals
from warmstart.evaluation.rouge import rouge_scores
from warmstart.report.collect import SCORES, Run

RESAMPLES = 1000
SEED = 1


@dataclass
class Row:
    """Complete runs that differ in their seed alone."""

    label: str
    runs: list[Run]

    @property
    def encoder(self) -> str:
        return _half(self.runs[0], "encoder")

    @property
    def decoder(self) -> str:
        return _half(self.runs[0], "decoder")

    def mean(self, *path: str | int) -> float | None:
        """Mean over seeds of a number in ``result.json``, a whole number in the path being a place in a list.

        None where a run has none.
        """
        values = [_at(run.result, path) for run in self.runs]
        known = [float(value) for value in values if isinstance(value, int | float)]
        return statistics.fmean(known) if len(known) == len(values) else None

    def deviation(self, *path: str | int) -> float | None:
        """Sample standard deviation over seeds; None of a single one, which shows none."""
        values = [_at(run.result, path) for run in self.runs]
        known = [float(value) for value in values if isinstance(value, int | float)]
        return statistics.stdev(known) if len(known) == len(values) > 1 else None

    def scores(self, kind: str) -> dict[str, float]:
        """Each example's score by its id, the mean over seeds; of the examples that every seed has."""
        of_runs = [{i: row[kind] for i, row in run.examples.items() if kind in row} for run in self.runs]
        ids = set.intersection(*(set(scores) for scores in of_runs))
        same = [i for i in sorted(ids) if len({_texts(run, i) for run in self.runs}) == 1]
        return {i: statistics.fmean(float(scores[i] or 0.0) for scores in of_runs) for i in same}

    def texts(self, i: str) -> tuple[str | None, str | None]:
        """Document and reference of an example: its id alone may be another example's in another test set."""
        return _texts(self.runs[0], i)


@dataclass
class Difference:
    """Row ``a`` minus row ``b`` on the examples of both."""

    a: int
    b: int
    examples: int
    scores: dict[str, tuple[float, float, float]]
    """Mean and 95 % interval by score."""


def rows_of(runs: list[Run]) -> list[Row]:
    """The complete runs, put together by seed, best ROUGE-1 first."""
    complete = [run for run in runs if run.status == "complete"]
    keys = telling_keys([run.choices for run in runs])
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in complete:
        groups.setdefault(tuple(f"{k}={v}" for k, v in sorted(run.choices.items())), []).append(run)
    rows = [Row(label(group[0], keys), group) for group in groups.values()]
    return sorted(rows, key=lambda row: -(row.mean("metrics", "test/rouge1") or 0.0))


def baseline_row(beside: Row, name: str, label: str, shown: int) -> Row:
    """The baseline ``lead<n>`` as a row, on the examples of ``beside``: to be paired with others like any row.

    Its texts are those of the first ``shown`` examples. Its scores are the run's own, and made here of all the texts
    where an earlier version has left none.
    """
    examples, n = beside.runs[0].examples, int(name.removeprefix("lead"))
    documents = [row["document"] for row in examples.values()]
    kinds = [kind for kind in SCORES if all(f"{name}/{kind}" in row for row in examples.values())]
    scored: dict[str, Any] = {k: [row[f"{name}/{k}"] for row in examples.values()] for k in kinds}
    texts = lead(documents[:shown] if kinds else documents, n)
    if not kinds:
        scored = dict(rouge_scores(texts, [row["reference"] for row in examples.values()]))
    rows = {
        i: {part: row[part] for part in ("document", "reference")}
        | ({"prediction": texts[place]} if place < len(texts) else {})
        | {kind: float(values[place]) for kind, values in scored.items()}
        for place, (i, row) in enumerate(examples.items())
    }
    return Row(label, [Run(beside.runs[0].folder, "complete", examples=rows)])


def telling_keys(choices: list[dict[str, str]]) -> list[str]:
    """The fewest keys, names first, that tell any two different configs apart."""
    every = {key for one in choices for key in one}
    varying = [key for key in every if len({one.get(key) for one in choices}) > 1]
    wanted = len({tuple(one.get(key) for key in varying) for one in choices})
    kept: list[str] = []
    for key in sorted(varying, key=lambda key: (not key.endswith(".name"), key)):
        before = len({tuple(one.get(k) for k in kept) for one in choices})
        if before == wanted:
            break
        if len({tuple(one.get(k) for k in (*kept, key)) for one in choices}) > before:
            kept.append(key)
    return kept


def label(run: Run, keys: list[str]) -> str:
    """What tells a run from the others, as on the command line."""
    said = [f"{key.removesuffix('.name')}={run.choices.get(key, '')}" for key in keys]
    return " ".join(said) or f"{_half(run, 'encoder')} x {_half(run, 'decoder')}"


def differences(rows: list[Row]) -> list[Difference]:
    """Every pair of rows that were judged on the same examples, or on some of the same."""
    scores = [{kind: row.scores(kind) for kind in SCORES} for row in rows]
    found = []
    for a, b in combinations(range(len(rows)), 2):
        ids = sorted(set(scores[a]["rouge1"]) & set(scores[b]["rouge1"]))
        ids = [i for i in ids if rows[a].texts(i) == rows[b].texts(i)]
        kinds = [k for k in SCORES if all(i in scores[a][k] and i in scores[b][k] for i in ids)]
        if not ids or not kinds:
            continue
        values_nk = np.array([[scores[a][k][i] - scores[b][k][i] for k in kinds] for i in ids])
        intervals = bootstrap_intervals(values_nk, RESAMPLES, SEED)
        said = {
            k: (float(values_nk[:, c].mean()), float(intervals[c, 0]), float(intervals[c, 1]))
            for c, k in enumerate(kinds)
        }
        found.append(Difference(a, b, len(ids), said))
    return found


def interval(row: Row, kind: str) -> tuple[float, float] | None:
    """95 % interval over examples of a row's mean."""
    values = np.array(list(row.scores(kind).values()))
    if not len(values):
        return None
    ((low, high),) = bootstrap_intervals(values[:, None], RESAMPLES, SEED)
    return float(low), float(high)


def _texts(run: Run, i: str) -> tuple[str | None, str | None]:
    return run.examples[i].get("document"), run.examples[i].get("reference")


def _half(run: Run, role: str) -> str:
    name = run.choices.get(f"{role}.name") or str(run.result.get("choices", {}).get(role, "?"))
    return f"{name}, untrained" if run.choices.get(f"{role}.weights") == "random" else name


def _at(result: dict[str, Any], path: tuple[str | int, ...]) -> Any:
    value: Any = result
    for key in path:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return None
    return value
