"""A study: a planned comparison of trained settings over seeds, with its plan, its stored scores and its contrasts."""

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from warmstart.config.schema import DEFAULTS
from warmstart.errors import UserError, listed
from warmstart.evaluation.paired_tests import (
    equivalence_p,
    equivalence_t_p,
    holm,
    mcnemar,
    paired_t_p,
    resampled_differences,
    two_sided_p,
)
from warmstart.report.collect import LIKELIHOODS, Run
from warmstart.report.comparable import other_labels

RESAMPLES = 10_000
SEED = 1
FEWEST_SEEDS = 3
_OTHER_RUNS = ("ckpt_weights", "optim.teacher")  # options that name a run
ALL = {"None": "all"}  # a limit of null
YES_OR_NO = ("empty", "new_number")  # measures that are true or false of an example; shown in percent
DIGITS = dict.fromkeys(LIKELIHOODS, 4) | dict.fromkeys(YES_OR_NO, 0)  # of stored scores; the others have 2


@dataclass
class Plan:
    """What a study compares; decided before its runs."""

    factors: dict[str, str]
    """Name of each factor in the tables to the option that it varies, or to ``experiment``: the name of its file."""
    measures: dict[str, str]
    """Score of each example (a key of predictions.jsonl, or ``empty``: no text) to its title; the first one decides."""
    contrasts: list[dict[str, Any]]
    """Each with ``name``, ``of`` and ``against`` (values of factors), and maybe ``each`` (a factor: one contrast for
    each of its values)."""
    lines: list[str]
    """Factors that distinguish the lines of the plot and the rows of the table of means."""
    x: str | None = None
    """Factor on the horizontal axis."""
    margin: float | None = None
    """Largest difference of the first measure that counts as equal: contrasts are tests of equivalence then."""
    runs: int = 0
    """Number of runs in the whole study."""
    borrowed: dict[str, Any] = field(default_factory=dict)
    """Runs of another study that have the same settings: ``study`` (its name), ``of`` (values of that study's factors)
    and ``as`` (values of ours)."""


@dataclass
class Cell:
    """The runs of one setting, which differ in their seed only."""

    values: dict[str, str]
    seeds: list[int] = field(default_factory=list)
    examples: dict[str, list[list[float]]] = field(default_factory=dict)
    """Scores by measure, a list of examples for each seed."""
    options: dict[str, str] | None = None
    """Options that are not at their default, without the seed; None if the study's file does not record them."""

    def scores(self, measure: str, seeds: list[int]) -> np.ndarray:
        """Return the scores of the examples, a row for each of the seeds (s, n)."""
        of_seed = dict(zip(self.seeds, self.examples[measure], strict=True))
        return np.array([of_seed[seed] for seed in seeds], dtype=np.float64)


@dataclass
class Contrast:
    """One planned difference, ``of`` minus ``against``."""

    name: str
    seeds: int
    differences: dict[str, tuple[float, float, float]]
    """By measure, the mean and both ends of its 95 % interval over seeds and examples."""
    p: float
    """Of the first measure: the larger p of the bootstrap and of the t-test over seeds, each of a difference or of
    equivalence."""
    corrected: float = 1.0
    """p of the first measure after Holm's correction for all contrasts of the study that can be computed."""
    of_seeds: list[float] = field(default_factory=list)
    """Mean difference of the first measure in each seed."""
    mcnemar: list[float] = field(default_factory=list)
    """p of McNemar's test in each seed, if the first measure is a yes or no."""


def read_plan(path: Path) -> Plan:
    """Read the plan of a study.

    Raises:
        UserError: The file is missing or has unknown keys.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Plan(**found)
    except FileNotFoundError:
        raise UserError(
            f"The study {path} was requested, but there is no such file. Name a yaml of docs/studies."
        ) from None
    except TypeError as error:
        raise UserError(
            f"{path} is not the plan of a study: {error}. Compare it with docs/studies/warm_start.yaml."
        ) from error


def stored_results(plan: Plan, runs: list[Run], before: dict[str, Any] | None = None) -> dict[str, Any]:
    """Reduce runs to what a study needs.

    Args:
        plan: The study.
        runs: Runs of its sweep; those that are not complete are left out.
        before: The content of the study's json file, of which the runs that are not among ``runs`` are kept.

    Returns:
        The new content of the study's json file.

    Raises:
        UserError: No run is complete, or the runs were tested on different examples.
    """
    complete = [run for run in runs if run.status == "complete" and run.examples and run.split == "test"]
    if not complete:
        raise UserError(f"{len(runs)} runs were found, but none is complete. The same sweep command continues them.")
    texts = _texts(complete[0])
    rows = []
    for run in complete:
        if _texts(run) != texts:
            raise UserError(f"{run.folder} was tested on other examples than {complete[0].folder}. Choose one sweep.")
        scores = {name: [_score(run, i, name) for i in texts] for name in plan.measures}
        rows.append(
            {
                "factors": {name: _setting(run, key) for name, key in plan.factors.items()},
                "seed": int(run.seed),
                "config_hash": run.result.get("config_hash"),
                "git_commit": run.result.get("git_commit"),
                "steps": run.result.get("steps"),
                "seconds": run.result.get("seconds", {}).get("fit"),
                "options": {key: value for key, value in run.choices.items() if value != DEFAULTS.get(key)},
                "examples": scores,
            }
        )
    identity = hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]
    if before:
        _refuse_others("The stored runs", before, {"examples": len(texts), "examples_hash": identity})
        rows += _absent_in(rows, before["runs"])
    rows.sort(key=lambda row: json.dumps([row["factors"], row["seed"]], sort_keys=True))
    versions = complete[0].result.get("versions", {})
    return {"versions": versions, "examples": len(texts), "examples_hash": identity, "runs": rows}


def with_borrowed(plan: Plan, stored: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Add the runs that a study shares with another one, if it has none of its own for their setting and seed.

    Args:
        plan: The study.
        stored: The content of its json file.
        folder: The folder of the studies.

    Raises:
        UserError: The other study has no such runs, or was tested on other examples.
    """
    if not plan.borrowed:
        return stored
    name, of, as_ours = (plan.borrowed[key] for key in ("study", "of", "as"))
    path = folder / f"{name}.json"
    other = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"runs": []}
    wanted = {key: str(value) for key, value in of.items()}
    found = [row for row in other["runs"] if row["factors"] == wanted]
    if not found:
        raise UserError(
            f"The runs {wanted} of {path} are to be shared, but there are none. Correct borrowed in the plan."
        )
    _refuse_others(str(path), other, stored)
    factors = {key: str(value) for key, value in as_ours.items()}
    rows = [row | {"factors": factors, "borrowed": name} for row in found]
    return stored | {"runs": stored["runs"] + _absent_in(stored["runs"], rows)}


def cells_of(stored: dict[str, Any]) -> list[Cell]:
    """Group the stored runs by setting, seeds in order.

    Raises:
        UserError: A setting has a seed twice, or runs that differ in an option.
    """
    cells: dict[str, Cell] = {}
    for row in sorted(stored["runs"], key=lambda row: row["seed"]):
        cell = cells.setdefault(json.dumps(row["factors"], sort_keys=True), Cell(row["factors"]))
        if row["seed"] in cell.seeds:
            raise UserError(f"Seed {row['seed']} of {row['factors']} is there twice. Read one sweep only.")
        options = row.get("options")
        if keys := _differing_beyond_seed(cell, options, row["seed"]):
            raise UserError(
                f"The runs {row['factors']} with seeds {cell.seeds[0]} and {row['seed']} differ in {listed(keys)}, "
                "which the plan does not compare. Read one sweep only, or make it a factor."
            )
        cell.options = options if cell.options is None else cell.options
        cell.seeds.append(row["seed"])
        for measure, values in row["examples"].items():
            cell.examples.setdefault(measure, []).append(values)
    return list(cells.values())


def contrasts_of(plan: Plan, cells: list[Cell]) -> list[Contrast]:
    """Compute the planned contrasts for which there are runs of enough seeds."""
    found = []
    for wanted in plan.contrasts:
        each = wanted.get("each")
        values = sorted({cell.values[each] for cell in cells}, key=in_order) if each else [None]
        for value in values:
            also = {each: value} if each else {}
            name = f"{wanted['name']}, {each} {ALL.get(str(value), value)}" if each else wanted["name"]
            of, against = (_cell(cells, wanted[side] | also) for side in ("of", "against"))
            if plan.runs and sum(len(cell.seeds) for cell in cells) >= plan.runs and not (of and against):
                raise UserError(
                    f"All runs are there, but no two settings are those of the contrast {name}. Correct it."
                )
            if of and against:
                _refuse_other_options(plan, name, of, against)
            if of and against and (contrast := _contrast(plan, name, of, against)):
                found.append(contrast)
    for contrast, corrected in zip(found, holm([contrast.p for contrast in found]), strict=True):
        contrast.corrected = corrected
    return found


def _refuse_other_options(plan: Plan, name: str, of: Cell, against: Cell) -> None:
    """Refuse a contrast of settings that differ in more than the factors, or of likelihoods over other labels.

    Settings that are experiments may differ in any option.
    """
    if of.options is None or against.options is None:
        return
    if "nll" in plan.measures:
        pair = (Run(Path(), "complete", choices=cell.options) for cell in (of, against) if cell.options is not None)
        if why := other_labels(*pair):
            raise UserError(f"The settings of the contrast {name} cannot be compared in nll: {why}")
    factors = set(plan.factors.values())
    if "experiment" in factors:
        return
    # encoder.name stands for all of encoder.*, and encoder.architecture for its entries.
    groups = tuple(f"{factor.removesuffix('.name')}." for factor in factors)
    others = [key for key in _differing(of.options, against.options) if key not in factors]
    if keys := [key for key in others if not key.startswith(groups)]:
        raise UserError(
            f"The settings of the contrast {name} also differ in {listed(keys)}, which the plan does not compare. Read "
            "one sweep only, or make it a factor."
        )


def _differing_beyond_seed(cell: Cell, options: dict[str, str] | None, seed: int) -> list[str]:
    """Return the options in which a run differs from the first run of its setting by more than the seed in a path."""
    if cell.options is None or options is None:
        return []
    one, other = _without_seed(cell.options, cell.seeds[0]), _without_seed(options, seed)
    return [key for key in _differing(cell.options, options) if one.get(key) != other.get(key)]


def _without_seed(options: dict[str, str], seed: int) -> dict[str, str]:
    """Return the options with ``seed`` replaced in the paths of other runs: each seed may start from one of its own."""
    return {
        key: re.sub(rf"(?<!\d){seed}(?!\d)", "SEED", value) if key in _OTHER_RUNS else value
        for key, value in options.items()
    }


def _differing(one: dict[str, str], other: dict[str, str]) -> list[str]:
    return sorted(key for key in one | other if one.get(key) != other.get(key))


def _contrast(plan: Plan, name: str, of: Cell, against: Cell) -> Contrast | None:
    seeds = [seed for seed in of.seeds if seed in against.seeds]
    if len(seeds) < FEWEST_SEEDS:
        return None
    differences, p, of_seeds, tests = {}, 1.0, np.zeros(0), list[float]()
    for number, measure in enumerate(plan.measures):
        a, b = of.scores(measure, seeds), against.scores(measure, seeds)
        resampled = resampled_differences(a, b, RESAMPLES, SEED)
        low, high = np.percentile(resampled, (2.5, 97.5))
        differences[measure] = (float((a - b).mean()), float(low), float(high))
        if number > 0:
            continue
        of_seeds = (a - b).mean(axis=1)
        p = max(two_sided_p(resampled), paired_t_p(of_seeds))
        if plan.margin is not None:
            p = max(equivalence_p(resampled, plan.margin), equivalence_t_p(of_seeds, plan.margin))
        if measure in YES_OR_NO:
            tests = [mcnemar(*pair) for pair in zip(a, b, strict=True)]
    return Contrast(name, len(seeds), differences, p, of_seeds=of_seeds.tolist(), mcnemar=tests)


def _absent_in(present: list[dict[str, Any]], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    there = [(row["factors"], row["seed"]) for row in present]
    return [row for row in rows if (row["factors"], row["seed"]) not in there]


def _refuse_others(name: str, one: dict[str, Any], other: dict[str, Any]) -> None:
    """Refuse scores of other test examples; files of before have no ``examples_hash``, only the number."""
    different = [key for key in ("examples", "examples_hash") if key in one and key in other and one[key] != other[key]]
    if different:
        raise UserError(f"{name} and the new ones were tested on different examples. Their scores cannot be paired.")


def _setting(run: Run, key: str) -> str:
    if key in run.choices:
        return run.choices[key]
    overrides = dict(word.partition("=")[::2] for word in run.result.get("overrides") or [])
    if key not in overrides:
        raise UserError(f"The study compares {key}, which {run.folder} does not set. Correct factors in its plan.")
    return str(overrides[key]).rpartition("/")[2]


def _texts(run: Run) -> dict[str, tuple[str, str]]:
    """Return document and reference of each test example, by id in order."""
    return {
        i: (run.examples[i].get("document", ""), run.examples[i].get("reference", "")) for i in sorted(run.examples)
    }


def _score(run: Run, i: str, measure: str) -> float:
    """Return a score of an example.

    Raises:
        UserError: The run has no such score of single examples, or it is not finite.
    """
    if measure == "empty":
        return float(not run.examples[i]["prediction"].strip())
    value = run.examples[i].get(measure)
    if value is None:
        raise UserError(
            f"The study needs {measure} of each example, but {run.folder} has none for example {i}. Choose another "
            "measure, or find out why the value is missing or not finite."
        )
    return round(float(value), DIGITS.get(measure, 2))


def _cell(cells: list[Cell], wanted: dict[str, Any]) -> Cell | None:
    matching = [c for c in cells if all(c.values.get(key) == str(value) for key, value in wanted.items())]
    return matching[0] if len(matching) == 1 else None


def in_order(value: str) -> tuple[float, str]:
    """Return a sort key: numbers by size, then other values; a limit of None is all examples and comes last."""
    try:
        return float(value), value
    except ValueError:
        return float("inf"), value
