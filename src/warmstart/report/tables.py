"""The leaderboard as csv and as LaTeX, for other programs and for papers."""

import csv
import io
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from warmstart.report.collect import LIKELIHOODS

Cell = str | float | None

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\N{EN DASH}": "--",
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
} | {character: f"\\{character}" for character in "&%$#_{}"}


def csv_table(shown: Sequence[dict[str, Any]], rivals: Sequence[dict[str, Any]], titles: dict[str, str]) -> str:
    """Return the scores as csv, unrounded.

    Args:
        shown: Rows of the page: ``label``, ``seeds``, ``rank`` and ``scores``, each with ``mean``, ``deviation`` and
            ``interval``.
        rivals: The baselines: ``name``, ``label``, ``split`` and ``scores``.
        titles: The scores to write, with their titles.
    """
    head = ["configuration", "seeds", "ranked by"]
    for title in titles.values():
        head += [title, f"{title} standard deviation over seeds", f"{title} low", f"{title} high"]
    lines: list[list[Cell]] = [
        [
            row["label"],
            len(row["seeds"]),
            row["rank"],
            *(cell for kind in titles for cell in _csv_cells(row["scores"][kind])),
        ]
        for row in shown
    ]
    for rival in rivals:
        scores = ([rival["scores"][kind], None, None, None] for kind in titles)
        lines.append([rival["label"], None, None, *(cell for four in scores for cell in four)])
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows([head, *lines])
    return written.getvalue()


def latex_table(shown: Sequence[dict[str, Any]], rivals: Sequence[dict[str, Any]], titles: dict[str, str]) -> str:
    """Return the scores as a LaTeX table of the package booktabs.

    Args:
        shown: As in ``csv_table``.
        rivals: As in ``csv_table``.
        titles: As in ``csv_table``.
    """
    lines = [[_escaped(row["label"]), *(_latex_cell(row["scores"][kind], kind) for kind in titles)] for row in shown]
    below = [
        [_escaped(rival["name"]), *(_latex_cell({"mean": rival["scores"][kind]}, kind) for kind in titles)]
        for rival in rivals
    ]
    head = ["configuration", *map(_escaped, titles.values())]
    body = [" & ".join(head) + r" \\", r"\midrule", *(" & ".join(line) + r" \\" for line in lines)]
    body += [r"\midrule", *(" & ".join(line) + r" \\" for line in below)] if below else []
    begin = rf"\begin{{tabular}}{{l{'r' * len(titles)}}}"
    return "\n".join([r"% \usepackage{booktabs}", begin, r"\toprule", *body, r"\bottomrule", r"\end{tabular}", ""])


def as_download(text: str, kind: str) -> str:
    """Return the address of a file that the page contains itself.

    Args:
        text: Content of the file.
        kind: Its media type, such as ``text/csv``.
    """
    return f"data:{kind};charset=utf-8,{quote(text, errors='backslashreplace')}"


def _csv_cells(score: dict[str, Any]) -> list[Cell]:
    return [score["mean"], score["deviation"], *(score["interval"] or (None, None))]


def _latex_cell(score: dict[str, Any], kind: str) -> str:
    if score["mean"] is None:
        return "--"
    digits = 3 if kind in LIKELIHOODS else 2
    deviation = score.get("deviation")
    return f"${score['mean']:.{digits}f}" + (rf" \pm {deviation:.{digits}f}$" if deviation is not None else "$")


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(character, character) for character in text)
