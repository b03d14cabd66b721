"""The rows of published scores: what papers report for the recipes of the runs, for the leaderboard of the page.

A published score is not comparable example by example, so these rows take no part in ranks, plots and paired tests.
"""

from typing import Any

from warmstart.report.collect import SCORES
from warmstart.report.compare import Row


def paper_rows(rows: list[Row]) -> list[dict[str, Any]]:
    """Return each published row once, in the order of the runs.

    Args:
        rows: The rows of the leaderboard.

    Returns:
        ``source`` (the paper and its row), ``data`` (name of the data set) and ``scores``, with None for a score that
        the paper does not report.
    """
    found: list[dict[str, Any]] = []
    for run in (run for row in rows for run in row.runs):
        paper = run.result.get("paper") or {}
        published = paper.get("scores") or {}
        scores = {kind: value if isinstance(value := published.get(kind), int | float) else None for kind in SCORES}
        one = {
            "source": paper.get("source"),
            "data": run.choices.get("data.name", run.result.get("choices", {}).get("data")),
            "scores": scores,
        }
        if any(value is not None for value in scores.values()) and one not in found:
            found.append(one)
    return found
