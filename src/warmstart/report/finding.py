"""State what a page shows: the best row, how much better it is than a baseline and the next row, and how certainly."""

from warmstart.config.metrics import TITLES
from warmstart.report.compare import Ranking, Row, higher_is_better
from warmstart.report.differences import Difference

ALPHA = 0.05
_NO_BREAK = "\N{NO-BREAK SPACE}"


def finding(rows: list[Row], compared: list[Row], pairs: list[Difference], ranking: Ranking, kind: str) -> list[str]:
    """Return the finding in a few sentences.

    Args:
        rows: The rows, best first.
        compared: The rows, followed by the baselines.
        pairs: The differences between ``compared``, with corrected p-values.
        ranking: The score that ranks the rows.
        kind: The score that decides comparisons.

    Returns:
        The sentences; empty without any row.
    """
    if not rows:
        return []
    best, title = rows[0], TITLES[kind]
    score = best.mean("metrics", f"{best.split}/{kind}")
    reached = "no score" if score is None else f"{title} {score:.2f} on the {best.split} split"
    seeds = f" (mean of {len(best.runs)} seeds)" if len(best.runs) > 1 else ""
    of_best = {pair.b: pair for pair in pairs if pair.a == 0 and kind in pair.scores}
    clauses = []
    if baselines := [b for b in of_best if b >= len(rows) and not compared[b].is_upper_bound]:
        strongest = min(baselines, key=lambda b: _better(of_best[b], kind))
        clauses.append(_than(of_best[strongest], kind, f"its strongest baseline, {_plain(compared[strongest].label)}"))
    if 1 in of_best and len(rows) > 1:
        clauses.append(_than(of_best[1], kind, f"the next row, {rows[1].label}"))
    if len(rows) == 1:
        first = f"{best.label} has {reached}{seeds}."
    elif ranking.score(best) is None:
        first = f"No row has a score that ranks it; the first one, {best.label}, has {reached}{seeds}."
    elif sum(ranking.score(row) is not None for row in rows) == 1:
        first = f"{best.label} is the only one of {len(rows)} rows with {ranking.metric}; it has {reached}{seeds}."
    elif ranking.metric.startswith("test/") and any(
        ranking.score(row) is not None and b not in of_best for b, row in enumerate(rows) if b > 0
    ):
        first = (
            f"No row is named the best, because not all rows have {title} of the same examples; the first one, "
            f"{best.label}, has {reached}{seeds}."
        )
    else:
        first = f"{best.label} is the best of {len(rows)} rows by {ranking.metric}, with {reached}{seeds}."
    sentences = [first, *([f"In {title} it is {', and '.join(clauses)}."] if clauses else [])]
    if len(rows) > 1 and 1 not in of_best:
        sentences.append(f"The next row, {rows[1].label}, has no {title} of the same examples.")
    among = [pair.p[kind] for pair in pairs if pair.b < len(rows) and kind in pair.p]
    if among and min(among) >= ALPHA:
        sentences.insert(0, f"No two rows are distinguishable in {title}.")
    elif close := [rows[b].label for b, pair in of_best.items() if 1 < b < len(rows) and pair.p.get(kind, 0) >= ALPHA]:
        others = f"{len(close)} rows" if len(close) > 1 else f"one row, {close[0]}"
        sentences.append(f"It is not distinguishable from {others} further down.")
    if tested := [pair for pair in pairs if kind in pair.p]:
        count = len({one for pair in tested for one in (pair.a, pair.b)})
        pairs_of = f"{len(tested)} pairs" if len(tested) > 1 else "one pair"
        sentences.append(f"p is corrected by Holm's method for {pairs_of} of {count} rows, baselines included.")
    return sentences


def _better(pair: Difference, kind: str) -> float:
    """Return how much better the first row of a pair is."""
    return pair.scores[kind][0] * (1 if higher_is_better(f"test/{kind}") else -1)


def _than(pair: Difference, kind: str, other: str) -> str:
    by = _better(pair, kind)
    how = f"{abs(by):.2f} {'better' if by >= 0 else 'worse'}"
    if kind not in pair.p:
        return f"{how} than {other} (too few examples for a test)"
    p = pair.p[kind]
    shown = "< 0.001" if p < 0.001 else f"= {p:.3f}"
    test = f"p {shown}".replace(" ", _NO_BREAK)
    if p < ALPHA:
        return f"{how} than {other} ({test})"
    return f"not distinguishable from {other} ({how}, {test})"


def _plain(label: str) -> str:
    return label.removesuffix(" (baseline)")
