"""Group runs by seed into rows, and rank them by validation.

A row's score of an example is the mean over its seeds. Intervals come from a bootstrap over examples (Koehn 2004); that
of a difference (``warmstart.report.differences``) is paired, with both rows on the same examples. The standard
deviation over seeds is reported separately, because it answers another question: how far another seed would move the
mean. Each seed and each checkpoint counts once per row: a checkpoint that was evaluated twice would otherwise show a
deviation of 0.
"""

import statistics
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from warmstart.config.metrics import SCORES as OF_METRICS
from warmstart.config.schema import DEFAULTS
from warmstart.config.training import MONITORS
from warmstart.evaluation.baselines import NOT_OF_DOCUMENTS, UPPER_BOUNDS, from_documents
from warmstart.evaluation.bootstrap import bootstrap_intervals
from warmstart.evaluation.metrics.rouge import rouge_scores
from warmstart.report.collect import BEST, SCORES, Run
from warmstart.report.comparable import chosen, other_labels, validation_texts

RESAMPLES = 1000
SEED = 1
LOSSES = ("validation/loss", "validation/source_effect")  # in nats, and not of the validation samples only
MOST_NAMES = 3  # of the seeds of a row, which are shown


@dataclass
class Row:
    """Complete runs that differ only in their seed, each evaluated at the checkpoint of the same name."""

    label: str
    runs: list[Run]
    left_out: list[Run] = field(default_factory=list)
    """Runs whose seed or checkpoint a newer run in ``runs`` has too; newest first."""
    is_upper_bound: bool = False
    """Whether it is a baseline that reads the references, which is shown but not tested."""

    @property
    def encoder(self) -> str:
        """Name of the encoder, with a note if it is untrained."""
        return _submodel(self.runs[0], "encoder")

    @property
    def decoder(self) -> str:
        """Name of the decoder, with a note if it is untrained."""
        return _submodel(self.runs[0], "decoder")

    @property
    def split(self) -> str:
        """The split of the row's examples, baselines and controls: ``validation`` if a run was not tested."""
        return "test" if all(run.split == "test" for run in self.runs) else "validation"

    @property
    def looks(self) -> int | None:
        """How often the test split of its runs was scored, at most; None if that is not recorded."""
        found = [run.looks for run in (*self.runs, *self.left_out) if run.looks is not None]
        return max(found, default=None)

    def mean(self, *path: str | int) -> float | None:
        """Return the mean over seeds of a number in ``result.json``; None if a run lacks it.

        Args:
            path: Keys of nested objects, and indices of lists.
        """
        values = [_at(run.result, path) for run in self.runs]
        known = [float(value) for value in values if isinstance(value, int | float)]
        return statistics.fmean(known) if len(known) == len(values) else None

    def of_fit(self, *path: str | int) -> float | None:
        """Return the mean over seeds of a number of the fit, such as a cost; None if a seed has none.

        The result of an evaluation may not repeat it, so it may come from the run that was fitted.

        Args:
            path: Keys of nested objects in ``result.json``, and indices of lists.
        """
        found = []
        for run in self.runs:
            values = (_at(one.result, path) for one in (run, *self.left_out) if one.seed == run.seed)
            found.append(next((float(value) for value in values if isinstance(value, int | float)), None))
        known = [value for value in found if value is not None]
        return statistics.fmean(known) if len(known) == len(found) else None

    def validation(self, metric: str) -> float | None:
        """Return the mean over seeds of a validation score; None if a seed has none.

        ``task=evaluate`` has no validation score, so it gets that of the fit with the same seed.
        """
        found = []
        for run in self.runs:
            values = (one.validation(metric) for one in (run, *self.left_out) if one.seed == run.seed)
            found.append(next((value for value in values if value is not None), None))
        known = [value for value in found if value is not None]
        return statistics.fmean(known) if len(known) == len(found) else None

    def deviation(self, *path: str | int) -> float | None:
        """Return the sample standard deviation over seeds of a number in ``result.json``; None for a single seed."""
        values = [_at(run.result, path) for run in self.runs]
        known = [float(value) for value in values if isinstance(value, int | float)]
        return statistics.stdev(known) if len(known) == len(values) > 1 else None

    def scores(self, kind: str) -> dict[str, float]:
        """Return the mean over seeds of each example's score, by id, for the examples that every seed has.

        The result is empty if a value is not finite, because the rest would be the easier examples.
        """
        if self.not_finite(kind):
            return {}
        of_runs = [{i: row[kind] for i, row in run.examples.items() if kind in row} for run in self.runs]
        ids = set.intersection(*(set(scores) for scores in of_runs))
        same = [i for i in sorted(ids) if self.has_one_example(i)]
        return {i: statistics.fmean(float(scores[i]) for scores in of_runs) for i in same}

    def has_one_example(self, i: str) -> bool:
        """Return whether all seeds have the same document and reference for an id that all have."""
        return len({_texts(run, i) for run in self.runs}) == 1

    def not_finite(self, kind: str) -> bool:
        """Return whether a value of a score was NaN or infinite, which the files of a run store as null."""
        means = (run.result.get("metrics", {}).get(f"{run.split}/{kind}", 0.0) for run in self.runs)
        values = (row.get(kind, 0.0) for run in self.runs for row in run.examples.values())
        return any(value is None for value in (*means, *values))

    def texts(self, i: str) -> tuple[str | None, str | None]:
        """Return document and reference of an example; one id can mean different examples in two test sets."""
        return _texts(self.runs[0], i)


def rows_of(runs: list[Run]) -> list[Row]:
    """Group the complete runs into rows, best first by ``ranked_by``.

    Among runs with the same seed or the same checkpoint, the one that finished last counts; runs with a test score take
    precedence.
    """
    complete = [run for run in runs if run.status == "complete"]
    keys = telling_keys([run.choices for run in runs])
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in complete:
        set_to = ((key, value) for key, value in sorted(run.choices.items()) if value != DEFAULTS.get(key))
        of = (run.checkpoint, *(f"{key}={value}" for key, value in set_to))
        groups.setdefault(of, []).append(run)
    rows = [Row("", *_newest(group)) for group in groups.values()]
    for row, name in zip(rows, _names(rows, keys), strict=True):
        row.label = name
    ranking, of_test = ranked_by(rows), f"test/{primary(rows)}"

    def rank(row: Row) -> tuple[bool, float, bool, float]:
        scores = (ranking.metric, ranking.score(row)), (of_test, row.mean("metrics", of_test))
        (lacks, score), (lacks_test, test) = (
            (value is None, (value or 0.0) * (-1 if higher_is_better(name) else 1)) for name, value in scores
        )
        return lacks, score, lacks_test, test

    return sorted(rows, key=rank)


@dataclass(frozen=True)
class Ranking:
    """The score that ranks the rows."""

    metric: str
    """Its name, with the split."""
    whole_split: bool = False
    """Whether it is that of the whole split, as in ``metrics`` of result.json, and not of a validation during the
    fit."""

    def score(self, row: Row) -> float | None:
        """Return the mean over the row's seeds; None if a seed has none."""
        return row.of_fit("metrics", self.metric) if self.whole_split else row.validation(self.metric)

    def is_of_same_texts(self, rows: list[Row]) -> bool:
        """Return whether all rows that have this validation score have it of the same texts."""
        of_samples = not (self.whole_split or self.metric in LOSSES)
        runs = (row.runs[0] for row in rows if self.score(row) is not None)
        first, *others = [validation_texts(run, of_samples=of_samples) for run in runs] or [{}]
        return all(one == first for one in others)


def ranked_by(rows: list[Row]) -> Ranking:
    """Return the score that ranks the rows.

    It is a validation score, because the test split must not select anything: the metric that all fits monitored, if it
    is comparable (nats are only over the same labels), otherwise the ``primary`` score of the whole validation split
    if all rows have it, otherwise that of the validation samples. Each is comparable only over the same texts. If there
    is no such score, it is that of the test split.
    """
    of_validation, of_test = (f"{split}/{primary(rows)}" for split in ("validation", "test"))
    whole, of_samples = Ranking(of_validation, whole_split=True), Ranking(of_validation)
    monitors = {run.result["validation"]["monitor"] for row in rows for run in _fits(row)}
    if len(monitors) == 1:
        monitored = Ranking(str(monitors.pop()))
        same = monitored.metric not in LOSSES or all(other_tokens(rows[0], row) is None for row in rows[1:])
        if same and monitored.is_of_same_texts(rows):
            return monitored
    scored = [whole.score(row) is not None for row in rows]
    if rows and all(scored) and whole.is_of_same_texts(rows):
        return whole
    if any(of_samples.score(row) is not None for row in rows) and of_samples.is_of_same_texts(rows):
        return of_samples
    return whole if any(scored) and whole.is_of_same_texts(rows) else Ranking(of_test, whole_split=True)


def primary(rows: list[Row]) -> str:
    """Return the score that decides comparisons in most of the rows."""
    found = Counter(row.runs[0].primary for row in rows)
    return found.most_common(1)[0][0] if found else "rouge1"


def higher_is_better(metric: str) -> bool:
    """Return whether larger values of a metric are better."""
    of_test = OF_METRICS.get(metric.removeprefix("test/"))
    return (MONITORS.get(metric) if of_test is None else of_test.better) != "min"


def _fits(row: Row) -> list[Run]:
    """Return the runs of a row that have a validation score."""
    return [run for run in (*row.runs, *row.left_out) if "monitor" in (run.result.get("validation") or {})]


def baseline_row(row: Row, name: str, label: str, shown: int | None) -> Row:
    """Return a baseline as a row on the examples of another row, to be compared like any row.

    Args:
        row: The row whose examples are used. The baseline's scores are those of its run, or computed here if an older
            release did not store them.
        name: Its name in result.json, such as ``lead1`` or ``nearest``.
        label: Label of the new row.
        shown: Number of examples that get a text; None for all.
    """
    examples, language = row.runs[0].examples, row.runs[0].choices.get("data.language", "en")
    documents = [example["document"] for example in examples.values()]
    kinds = [kind for kind in SCORES if all(f"{name}/{kind}" in example for example in examples.values())]
    scored: dict[str, Any] = {k: [example[f"{name}/{k}"] for example in examples.values()] for k in kinds}
    if name in NOT_OF_DOCUMENTS:
        texts = [_stored_text(example, name) for example in examples.values()][:shown]
    else:
        texts = from_documents(name, documents[:shown] if kinds else documents, language)
    if not kinds and name not in NOT_OF_DOCUMENTS and not row.runs[0].signatures:  # scored by an earlier release
        scored = dict(rouge_scores(texts, [example["reference"] for example in examples.values()], language))
    rows = {
        i: {name: example[name] for name in ("document", "reference")}
        | ({"prediction": texts[number]} if number < len(texts) else {})
        | {kind: float(values[number]) for kind, values in scored.items()}
        for number, (i, example) in enumerate(examples.items())
    }
    return Row(label, [Run(row.runs[0].folder, "complete", examples=rows)], is_upper_bound=name in UPPER_BOUNDS)


def _stored_text(example: dict[str, Any], name: str) -> str:
    stored = example.get("baselines")
    text = stored.get(name) if isinstance(stored, dict) else None
    return text if isinstance(text, str) else ""


def telling_keys(choices: list[dict[str, str]]) -> list[str]:
    """Return the fewest keys that distinguish all different configs, names first."""
    every = {key for one in choices for key in one}
    full = [{key: one.get(key, DEFAULTS.get(key)) for key in every} for one in choices]
    varying = [key for key in every if len({one[key] for one in full}) > 1]
    wanted = len({tuple(one[key] for key in varying) for one in full})
    kept: list[str] = []
    for key in sorted(varying, key=lambda key: (not key.endswith(".name"), key)):
        before = len({tuple(one[k] for k in kept) for one in full})
        if before == wanted:
            break
        if len({tuple(one[k] for k in (*kept, key)) for one in full}) > before:
            kept.append(key)
    return kept


def _names(rows: list[Row], keys: list[str]) -> list[str]:
    """Name each row as the user named its runs, otherwise by the given keys, and in no way twice."""
    own = [_own_names(row) for row in rows]
    by_keys = [label(row.runs[0], keys) for row in rows]
    names = [
        ", ".join(named) if 0 < len(named) <= MOST_NAMES else keyed for named, keyed in zip(own, by_keys, strict=True)
    ]
    return [
        f"{name} ({keyed})" if names.count(name) > 1 and name != keyed else name
        for name, keyed in zip(names, by_keys, strict=True)
    ]


def _own_names(row: Row) -> list[str]:
    named = dict.fromkeys(run.name for run in (*row.runs, *row.left_out) if run.name)
    suffix = "" if row.runs[0].checkpoint == BEST else f" checkpoint={row.runs[0].checkpoint}"
    return [f"{name}{suffix}" for name in named]


def label(run: Run, keys: list[str]) -> str:
    """Label a run by the given keys, as on the command line, and by its checkpoint if that is not the best one."""
    pairs = [f"{key.removesuffix('.name')}={run.choices.get(key, DEFAULTS.get(key, ''))}" for key in keys]
    name = " ".join(pairs) or f"{_submodel(run, 'encoder')} x {_submodel(run, 'decoder')}"
    return name if run.checkpoint == BEST else f"{name} checkpoint={run.checkpoint}"


def interval(row: Row, kind: str) -> tuple[float, float] | None:
    """Return the 95 % interval of a row's mean score on its split; None if fewer than two examples have a score.

    A score that only the whole split has, such as BLEU, has the mean interval of the row's runs.
    """
    values = np.array(list(row.scores(kind).values()))
    if len(values) < 2:
        low, high = (row.mean("metrics", f"{row.split}/{kind}_ci", end) for end in (0, 1))
        no_example_has_it = not any(kind in example for run in row.runs for example in run.examples.values())
        return (low, high) if no_example_has_it and low is not None and high is not None else None
    ((low, high),) = bootstrap_intervals(values[:, None], RESAMPLES, SEED)
    return float(low), float(high)


def _newest(runs: list[Run]) -> tuple[list[Run], list[Run]]:
    """Divide runs into one per seed and checkpoint, in the order of ``runs``, and the others.

    The run that finished last is chosen, among those with a test score if there are any.
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


def other_tokens(a: Row, b: Row) -> str | None:
    """Return why the likelihoods of two rows are not comparable; None if they are."""
    return other_labels(a.runs[0], b.runs[0])


def _texts(run: Run, i: str) -> tuple[str | None, str | None]:
    return run.examples[i].get("document"), run.examples[i].get("reference")


def _submodel(run: Run, role: str) -> str:
    name = run.choices.get(f"{role}.name") or chosen(run, role)
    untrained = run.choices.get(f"{role}.weights") == "random" and run.choices.get(f"{role}.model_type") != "none"
    return f"{name}, untrained" if untrained else name


def _at(result: dict[str, Any], path: tuple[str | int, ...]) -> Any:
    value: Any = result
    for key in path:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return None
    return value
