"""What runs say together: seeds put together into rows, and the difference of any two rows with its interval.

A row's score of an example is the mean over its seeds; intervals are from a bootstrap over examples (Koehn 2004), and
that of a difference is paired: both rows on the same examples. The deviation between seeds stands apart from that,
for it is another question: how far another seed would move the mean. In a row one seed counts once, and so does one
checkpoint: judged again it is no other seed, and would show a deviation of 0.
"""

import statistics
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from warmstart.evaluation.baselines import lead
from warmstart.evaluation.bootstrap import bootstrap_intervals
from warmstart.evaluation.rouge import rouge_scores
from warmstart.report.collect import BEST, SCORES, Run

RESAMPLES = 1000
VALIDATION_ROUGE = "validation/rouge1"
SEED = 1
# Of which texts a tokenizer was trained, where the decoder's own could not be had.
TRAINING_TEXTS = tuple(
    f"data.{key}" for key in ("kind", "path", "train_path", "subset", "revision", "clean", "limit_train")
)


@dataclass
class Row:
    """Complete runs that differ in their seed alone, each judged by the checkpoint of one name."""

    label: str
    runs: list[Run]
    left_out: list[Run] = field(default_factory=list)
    """Runs of a seed or of a checkpoint that a newer one of ``runs`` has as well; the newest first."""

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

    def cost(self, *path: str) -> float | None:
        """Mean over seeds of what a fit cost: an evaluation of its checkpoint does not say that again."""
        costs = []
        for run in self.runs:
            values = (_at(one.result, path) for one in (run, *self.left_out) if one.seed == run.seed)
            costs.append(next((float(value) for value in values if isinstance(value, int | float)), None))
        known = [cost for cost in costs if cost is not None]
        return statistics.fmean(known) if len(known) == len(costs) else None

    def validation(self, metric: str) -> float | None:
        """Mean over seeds of a validation score; of an evaluated run, that of the fit that its checkpoint is from."""
        found = []
        for run in self.runs:
            values = (one.validation(metric) for one in (run, *self.left_out) if one.seed == run.seed)
            found.append(next((value for value in values if value is not None), None))
        known = [value for value in found if value is not None]
        return statistics.fmean(known) if len(known) == len(found) else None

    def deviation(self, *path: str | int) -> float | None:
        """Sample standard deviation over seeds; None of a single one, which shows none."""
        values = [_at(run.result, path) for run in self.runs]
        known = [float(value) for value in values if isinstance(value, int | float)]
        return statistics.stdev(known) if len(known) == len(values) > 1 else None

    def scores(self, kind: str) -> dict[str, float]:
        """Each example's score by its id, the mean over seeds; of the examples that every seed has.

        Empty where some value is not finite: a mean of the others would be of the easier examples.
        """
        if self.not_finite(kind):
            return {}
        of_runs = [{i: row[kind] for i, row in run.examples.items() if kind in row} for run in self.runs]
        ids = set.intersection(*(set(scores) for scores in of_runs))
        same = [i for i in sorted(ids) if len({_texts(run, i) for run in self.runs}) == 1]
        return {i: statistics.fmean(float(scores[i]) for scores in of_runs) for i in same}

    def not_finite(self, kind: str) -> bool:
        """Whether some value of a score was NaN or infinite, which stands as null in what a run leaves."""
        means = (run.result.get("metrics", {}).get(f"test/{kind}", 0.0) for run in self.runs)
        values = (row.get(kind, 0.0) for run in self.runs for row in run.examples.values())
        return any(value is None for value in (*means, *values))

    def texts(self, i: str) -> tuple[str | None, str | None]:
        """Document and reference of an example: its id alone may be another example's in another test set."""
        return _texts(self.runs[0], i)


@dataclass
class Difference:
    """Row ``a`` minus row ``b`` on the examples of both."""

    a: int
    b: int
    examples: int
    scores: dict[str, tuple[float, float | None, float | None]]
    """Mean and 95 % interval by score; a single example has no interval."""
    left_out: str | None = None
    """Why their likelihoods are not compared, where that needs saying."""


def rows_of(runs: list[Run]) -> list[Row]:
    """The complete runs, put together by seed, the best first by :func:`ranked_by`.

    Of runs of one seed, or of one checkpoint, the one that finished last is taken, of those with a test score first.
    """
    complete = [run for run in runs if run.status == "complete"]
    keys = telling_keys([run.choices for run in runs])
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in complete:
        of = (run.checkpoint, *(f"{k}={v}" for k, v in sorted(run.choices.items())))
        groups.setdefault(of, []).append(run)
    rows = [Row(label(group[0], keys), *_newest(group)) for group in groups.values()]
    metric = ranked_by(rows)

    def place(row: Row) -> tuple[bool, float, float]:
        score, test = row.validation(metric), -(row.mean("metrics", "test/rouge1") or 0.0)
        return (score is None, 0.0 if score is None else -score if higher_is_better(metric) else score, test)

    return sorted(rows, key=place)


def ranked_by(rows: list[Row]) -> str:
    """The score that ranks the rows: a validation score, for the test split must choose nothing.

    It is what all fits monitored, if that can be compared: a loss is of the same unit only under the same tokens.
    Otherwise it is the ROUGE-1 of validation samples. Where no row has a validation score, it is that of the test.
    """
    monitors = {run.result["validation"]["monitor"] for row in rows for run in _fits(row)}
    if not monitors:
        return "test/rouge1"
    if len(monitors) == 1:
        (monitor,) = monitors
        if monitor != "validation/loss" or all(_other_tokens(rows[0], row) is None for row in rows[1:]):
            return str(monitor)
    return VALIDATION_ROUGE if any(row.validation(VALIDATION_ROUGE) is not None for row in rows) else "test/rouge1"


def higher_is_better(metric: str) -> bool:
    """Whether the larger score is the better one."""
    return metric != "validation/loss"


def _fits(row: Row) -> list[Run]:
    """The runs of a row that say how well they validated."""
    return [run for run in (*row.runs, *row.left_out) if "monitor" in (run.result.get("validation") or {})]


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
    """What tells a run from the others, as on the command line, and its checkpoint if it is not the best one."""
    said = [f"{key.removesuffix('.name')}={run.choices.get(key, '')}" for key in keys]
    name = " ".join(said) or f"{_half(run, 'encoder')} x {_half(run, 'decoder')}"
    return name if run.checkpoint == BEST else f"{name} checkpoint={run.checkpoint}"


def differences(rows: list[Row]) -> list[Difference]:
    """Every pair of rows that were judged on the same examples, or on some of the same."""
    scores = [{kind: row.scores(kind) for kind in SCORES} for row in rows]
    not_finite = [row.not_finite("nll") for row in rows]
    found = []
    for a, b in combinations(range(len(rows)), 2):
        ids = sorted(set(scores[a]["rouge1"]) & set(scores[b]["rouge1"]))
        ids = [i for i in ids if rows[a].texts(i) == rows[b].texts(i)]
        why = None
        if all(scores[one]["nll"] or not_finite[one] for one in (a, b)):  # a baseline has no likelihoods
            broken = [rows[one].label for one in (a, b) if not_finite[one]]
            why = _not_finite(broken) if broken else _other_tokens(rows[a], rows[b])
        kinds = [k for k in SCORES if all(i in scores[a][k] and i in scores[b][k] for i in ids)]
        kinds = [k for k in kinds if k != "nll" or why is None]
        if not ids or not kinds:
            continue
        values_nk = np.array([[scores[a][k][i] - scores[b][k][i] for k in kinds] for i in ids])
        intervals = bootstrap_intervals(values_nk, RESAMPLES, SEED)
        said: dict[str, tuple[float, float | None, float | None]] = {}
        for kind, values, (low, high) in zip(kinds, values_nk.T, intervals, strict=True):
            ends = (float(low), float(high)) if len(ids) > 1 else (None, None)
            said[kind] = (float(values.mean()), *ends)
        found.append(Difference(a, b, len(ids), said, why))
    return found


def interval(row: Row, kind: str) -> tuple[float, float] | None:
    """95 % interval over examples of a row's mean; None where fewer than two have a score."""
    values = np.array(list(row.scores(kind).values()))
    if len(values) < 2:
        return None
    ((low, high),) = bootstrap_intervals(values[:, None], RESAMPLES, SEED)
    return float(low), float(high)


def _newest(runs: list[Run]) -> tuple[list[Run], list[Run]]:
    """Of each seed and of each checkpoint one run, in the order of ``runs``; and the others.

    It is the one that finished last, among those whose test split was scored where there are any.
    """
    taken: set[tuple[str, str]] = set()
    others = []
    for run in sorted(runs, key=lambda run: (not run.is_tested, -run.finished)):
        of = {("seed", run.seed)} | ({("sha256", run.checkpoint_sha256)} if run.checkpoint_sha256 else set())
        if of & taken:
            others.append(run)
        else:
            taken |= of
    return [run for run in runs if not any(run is other for other in others)], others


def _not_finite(labels: list[str]) -> str:
    return f"nats/token is left out: not all likelihoods of {' and '.join(labels)} are finite."


def _other_tokens(a: Row, b: Row) -> str | None:
    """Why nats a token of two rows are not in one unit; None where they are."""
    first, second = a.runs[0], b.runs[0]
    left, right = _decides_tokens(first), _decides_tokens(second)
    if all(run.choices.get("decoder.weights") == "random" for run in (first, second)):
        # The tokenizers of both may have been trained.
        left |= {key: first.choices.get(key) for key in TRAINING_TEXTS}
        right |= {key: second.choices.get(key) for key in TRAINING_TEXTS}
    if differing := sorted(key for key in left | right if left.get(key) != right.get(key)):
        return (
            "nats/token is left out: a token is the same unit only where decoder tokenizer and max_target_length are "
            f"the same, and these rows differ in {', '.join(differing)}."
        )
    return None


def _decides_tokens(run: Run) -> dict[str, str | None]:
    """What decides which tokens a reference becomes, by key, as far as the run has recorded it."""
    said = run.choices
    if said.get("decoder.tokenizer", "None") != "None":
        of = ["decoder.tokenizer"]
    else:
        of = [key for key in ("decoder.path", "decoder.revision") if key in said]
    tokenizer = {key: said[key] for key in of} or {"decoder": said.get("decoder.name") or _chosen(run, "decoder")}
    return tokenizer | {key: said.get(key) for key in ("decoder.scale", "data.max_target_length")}


def _texts(run: Run, i: str) -> tuple[str | None, str | None]:
    return run.examples[i].get("document"), run.examples[i].get("reference")


def _half(run: Run, role: str) -> str:
    name = run.choices.get(f"{role}.name") or _chosen(run, role)
    return f"{name}, untrained" if run.choices.get(f"{role}.weights") == "random" else name


def _chosen(run: Run, role: str) -> str:
    return str(run.result.get("choices", {}).get(role, "?"))


def _at(result: dict[str, Any], path: tuple[str | int, ...]) -> Any:
    value: Any = result
    for key in path:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return None
    return value
