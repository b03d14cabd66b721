"""The page of a study, which one command rebuilds from its committed results.

python -m warmstart.report.study_page docs/studies/warm_start.yaml
python -m warmstart.report.study_page docs/studies/warm_start.yaml runs/multirun/study_warm_start  # read its runs first
python -m warmstart.report.study_page --add docs/studies/warm_start.yaml runs/multirun/study_warm_start  # keep others

A study is four files of one name: ``.yaml`` (the plan: factors, measures, contrasts), ``.json`` (the scores of each run
and each test example), ``.md`` (the page) and ``.svg`` (the plot). The command writes the last two from the first two;
in the page it replaces only what stands between the two comments of ``START`` and ``END``.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from warmstart.atomic import write_text
from warmstart.errors import UserError
from warmstart.evaluation.paired_tests import resampled_differences
from warmstart.report.collect import LIKELIHOODS, collect
from warmstart.report.study import (
    ALL,
    FEWEST_SEEDS,
    RESAMPLES,
    SEED,
    YES_OR_NO,
    Cell,
    Contrast,
    Plan,
    cells_of,
    contrasts_of,
    in_order,
    read_plan,
    stored_results,
    with_borrowed,
)

START, END = "<!-- results -->", "<!-- end of results -->"
COLORS = ("#4053d3", "#b51d14", "#00a076", "#b86a00", "#7a3e9d", "#555555")
MARKERS = "osD^vP"


def rebuilt(page: str, plan: Plan, stored: dict[str, Any]) -> str:
    """Return a page with its results computed again.

    Args:
        page: The page, which contains the comments that enclose the results.
        plan: The study.
        stored: The content of its json file.

    Raises:
        UserError: The comments are missing.
    """
    before, opened, rest = page.partition(START)
    _, closed, after = rest.partition(END)
    if not opened or not closed:
        raise UserError(f"A page of a study needs the lines {START} and {END}: its results are written between them.")
    cells = cells_of(stored)
    parts = [_state(plan, stored), _means(plan, cells), _contrasts(plan, contrasts_of(plan, cells))]
    return "\n\n".join([before + START, *(part for part in parts if part), END + after])


def plot(plan: Plan, cells: list[Cell], output: Path) -> None:
    """Draw the first measure of each cell as an SVG, with seeds as thin marks: a line for each setting over ``plan.x``.

    Without ``plan.x`` each setting is a point above its name.

    Raises:
        UserError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError("The plot of a study needs matplotlib. Install it with: pip install matplotlib") from error
    measure, title = next(iter(plan.measures.items()))
    scale, _ = _unit(measure)
    with mpl.rc_context({"svg.hashsalt": "warmstart", "svg.fonttype": "none", "font.size": 10}):
        figure = Figure(figsize=(6.8, 3.8), layout="constrained")
        axes = figure.add_subplot()
        ticks = sorted({cell.values[plan.x] for cell in cells}, key=in_order) if plan.x else []
        groups: dict[str, list[Cell]] = {}
        for cell in cells:
            groups.setdefault(_label(plan, cell), []).append(cell)
        for number, (label, group) in enumerate(sorted(groups.items())):
            color, marker = COLORS[number % len(COLORS)], MARKERS[number % len(MARKERS)]
            group.sort(key=lambda cell: in_order(cell.values[plan.x]) if plan.x else (0.0, ""))
            at = [ticks.index(cell.values[plan.x]) if plan.x else number for cell in group]
            of_seeds = [[scale * float(np.mean(seed)) for seed in cell.examples[measure]] for cell in group]
            axes.plot(at, [np.mean(one) for one in of_seeds], color=color, marker=marker, label=label)
            for place, values in zip(at, of_seeds, strict=True):
                axes.plot([place] * len(values), values, linestyle="none", marker="_", color=color, alpha=0.6)
        if plan.x:
            axes.set_xticks(range(len(ticks)), [ALL.get(tick, tick) for tick in ticks])
            axes.set_xlabel(plan.x)
            figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=9, columnspacing=1)
        else:
            # On lines of their own: the labels of neighbours would overlap.
            gap = " " if len(plan.lines) == 1 else ", "
            axes.set_xticks(range(len(groups)), [label.replace(gap, "\n") for label in sorted(groups)])
            axes.margins(x=0.2)
        axes.set_ylabel(title)
        axes.grid(alpha=0.3)
        figure.savefig(output, format="svg", metadata={"Date": None, "Creator": None})


def main(words: list[str]) -> None:
    """Rebuild the page of a study, from its runs if they are named."""
    parser = argparse.ArgumentParser(description="Rebuild the page of a study from its results.")
    parser.add_argument("plan", type=Path, help="its yaml file")
    parser.add_argument(
        "sweep", type=Path, nargs="*", help="folders of its runs, which are read into its json file first"
    )
    parser.add_argument("--add", action="store_true", help="keep the stored scores of runs that are in none of them")
    given = parser.parse_args(words)
    plan, results = read_plan(given.plan), given.plan.with_suffix(".json")
    if given.sweep:
        before = json.loads(results.read_text(encoding="utf-8")) if given.add and results.exists() else None
        stored = stored_results(plan, collect(given.sweep), before)
        write_text(results, json.dumps(stored, separators=(",", ":")).replace('{"factors"', '\n{"factors"') + "\n")
    if not results.exists():
        raise UserError(f"{results} does not exist: the study has no scores yet. Name the folder of its runs, too.")
    stored = with_borrowed(plan, json.loads(results.read_text(encoding="utf-8")), given.plan.parent)
    page = given.plan.with_suffix(".md")
    write_text(page, rebuilt(page.read_text(encoding="utf-8"), plan, stored))
    plot(plan, cells_of(stored), given.plan.with_suffix(".svg"))


def _state(plan: Plan, stored: dict[str, Any]) -> str:
    runs = stored["runs"]
    hours = sum(run["seconds"] or 0.0 for run in runs) / 3600
    releases = ", ".join(
        f"{name} {stored['versions'][name]}" for name in ("torch", "transformers") if name in stored["versions"]
    )
    said = f"{len(runs)} runs, {stored['examples']} test examples, {hours:.1f} hours of training in all ({releases})."
    if borrowed := [run["borrowed"] for run in runs if "borrowed" in run]:
        said += f" {len(borrowed)} of the runs are those of [another study]({borrowed[0]}.md), with equal settings."
    if len(runs) < plan.runs:
        said += (
            f" **Not finished: {plan.runs} runs are planned.** Only contrasts with {FEWEST_SEEDS} seeds are shown, and "
            "corrected for their number."
        )
    return said


def _means(plan: Plan, cells: list[Cell]) -> str:
    factors = [*plan.lines, *([plan.x] if plan.x else [])]
    header = [*factors, "seeds", *plan.measures.values()]
    lines = [_row(header), _row(["---"] * len(header))]

    def place(cell: Cell) -> list[tuple[float, str]]:
        return [in_order(cell.values[name]) for name in (*factors[len(plan.lines) :], *plan.lines)]

    for cell in sorted(cells, key=place):
        values = [
            ALL.get(cell.values[name], cell.values[name]) for name in (*plan.lines, *([plan.x] if plan.x else []))
        ]
        scores = [_mean(cell, measure) for measure in plan.measures]
        lines.append(_row([*values, str(len(cell.seeds)), *scores]))
    return "\n".join(lines)


def _mean(cell: Cell, measure: str) -> str:
    scores_SN = cell.scores(measure, cell.seeds)
    low, high = np.percentile(resampled_differences(scores_SN, np.zeros_like(scores_SN), RESAMPLES, SEED), (2.5, 97.5))
    factor, digits = _unit(measure)
    return f"{scores_SN.mean() * factor:.{digits}f} [{low * factor:.{digits}f}, {high * factor:.{digits}f}]"


def _contrasts(plan: Plan, contrasts: list[Contrast]) -> str:
    if not contrasts:
        return ""
    tested = "p of a difference beyond the margin" if plan.margin is not None else "p"
    first = next(iter(plan.measures))
    header = ["contrast", *plan.measures.values(), f"{plan.measures[first]}, each seed", tested, "after Holm"]
    header += ["McNemar, each seed"] if first in YES_OR_NO else []
    lines = [_row(header), _row(["---"] * len(header))]
    for contrast in contrasts:
        cells = [contrast.name]
        for measure, (mean, low, high) in contrast.differences.items():
            factor, digits = _unit(measure)
            cells.append(f"{mean * factor:+.{digits}f} [{low * factor:+.{digits}f}, {high * factor:+.{digits}f}]")
        factor, digits = _unit(first)
        cells.append(", ".join(f"{one * factor:+.{digits}f}" for one in contrast.of_seeds))
        corrected = _p(contrast.corrected)
        cells += [_p(contrast.p), f"**{corrected}**" if contrast.corrected < 0.05 else corrected]
        cells += [", ".join(_p(p) for p in contrast.mcnemar)] if contrast.mcnemar else []
        lines.append(_row(cells))
    return "\n".join(lines)


def _unit(measure: str) -> tuple[float, int]:
    """Return factor and digits: a yes or no is shown in percent, nats with three digits."""
    return (100.0, 1) if measure in YES_OR_NO else (1.0, 3 if measure in LIKELIHOODS else 2)


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _label(plan: Plan, cell: Cell) -> str:
    return ", ".join(f"{name} {cell.values[name]}" for name in plan.lines)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
