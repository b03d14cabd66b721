"""The table at the end of a run: the model, its baselines and its controls, and what the scores mean."""

import math
from typing import Any

from rich.console import Group
from rich.table import Table

from warmstart.config.metrics import METRICS, SCORES, TITLES, primary_of, split_of
from warmstart.evaluation.baselines import LABELS, to_beat
from warmstart.evaluation.bootstrap import FEWEST
from warmstart.evaluation.judgement import Judgement
from warmstart.evaluation.likelihood import ALONE, SHUFFLED

NAMES = {SHUFFLED: "another document", ALONE: "decoder only", **LABELS}
COLUMNS = 4  # scores side by side in 80 columns
_BETTER = {
    "lead": "Copying the first sentences",
    "copula": "This rule",
    "nearest": "The target of the most similar training text",
    "most_frequent": "One text for all",
    "source": "Copying the source",
}
FEW_DISTINCT = 0.5  # fraction of distinct summaries below which a sentence warns of repetition


def score_rows(
    metrics: dict[str, Any], baselines: dict[str, Any], controls: dict[str, Any], model_name: str
) -> dict[str, dict[str, Any]]:
    """Return the scores by name of the row: the model, its baselines, its controls."""
    rows: dict[str, dict[str, Any]] = {model_name: scores_of_split(metrics)}
    return rows | {NAMES.get(name, name): row for name, row in (baselines | controls).items()}


def score_table(judgement: Judgement, model_name: str) -> Group:
    """Make the table: each score above its 95 % interval, and the signatures of the metrics.

    It is 80 columns wide with a short model name; more than ``COLUMNS`` scores are several tables.
    """
    kinds, tables = kinds_of(judgement.metrics), []
    split = split_of(judgement.metrics)
    examples = f"{judgement.metrics[f'{split}/examples']} {split} examples"
    rows = score_rows(judgement.metrics, judgement.baselines, judgement.controls, model_name)
    for start in range(0, len(kinds), COLUMNS):
        shown = kinds[start : start + COLUMNS]
        what = "ROUGE F1" if all(kind in METRICS["rouge"] for kind in shown) else "Scores"
        table = Table(title=f"{what} on {examples}, 95 % bootstrap intervals")
        table.add_column("", overflow="fold")
        for kind in shown:
            table.add_column(TITLES[kind], justify="right", no_wrap=True)
        for name, row in rows.items():
            table.add_row(name.replace("[", r"\["), *(_cell(row, kind) for kind in shown))
        tables.append(table)
    # With blanks, long signatures break between their parts.
    tables[-1].caption = "\n".join(text.replace("|", " | ") for text in judgement.signatures) or None
    tables[-1].caption_justify = "left"
    return Group(*tables)


def scores_of_split(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return the metrics of the split of ``split_of``, without the prefix."""
    prefix = f"{split_of(metrics)}/"
    return {name.removeprefix(prefix): value for name, value in metrics.items() if name.startswith(prefix)}


def kinds_of(metrics: dict[str, Any]) -> list[str]:
    """Return the names of the scores in the metrics of a result, such as ``rouge1``."""
    return [name for name in SCORES if f"{split_of(metrics)}/{name}" in metrics]


def known_interval(row: dict[str, Any], name: str) -> tuple[float, float] | None:
    """Return the interval of a score; None for one example, or for values that are not finite."""
    low, high = row[f"{name}_ci"]
    if any(end is None or not math.isfinite(end) for end in (low, high)):  # null in result.json, NaN before
        return None
    return low, high


def verdict(judgement: Judgement) -> str:
    """Return the ``statements`` of a judgement, one per line."""
    primary = primary_of(judgement.signatures)
    left_out = [f"Left out: {reason}" for reason in judgement.left_out.values()]
    return "\n".join(statements(judgement.metrics, judgement.baselines, judgement.controls, primary) + left_out)


def statements(
    metrics: dict[str, Any], baselines: dict[str, Any], controls: dict[str, Any], primary: str = "rouge1"
) -> list[str]:
    """State the result against each rival, from the paired interval of one score.

    Other scores are stated if they disagree. With fewer than ``FEWEST`` examples no conclusion is drawn.

    Args:
        metrics: Scores of the model, as in ``Judgement``.
        baselines: Scores of the baselines.
        controls: Scores of the controls.
        primary: The score that decides.

    Returns:
        One to three sentences for each rival, and one each if few summaries are distinct, some are empty, or numbers
        are not from the source.
    """
    found, own = [], scores_of_split(metrics)
    for name, row in (controls | to_beat(baselines)).items():
        examples = row.get("examples", own.get("examples", FEWEST))
        if not _is_known(row, primary):
            found.append(" ".join([f"Against {_rival(name)}, {TITLES[primary]} is not defined.", *_likelier(row)]))
            continue
        difference = f"{row[f'{primary}_difference']:+.2f} {TITLES[primary]}"
        if examples < FEWEST:
            found.append(" ".join([_too_few(name, examples, difference), *_not_finite(row)]))
            continue
        kinds = [kind for kind, score in SCORES.items() if score.better and _is_known(row, kind)]
        outcomes = {kind: _outcome_of(row, kind) for kind in kinds}
        low, high = row[f"{primary}_difference_ci"]
        sentence = _sentence(name, outcomes[primary], f"{difference} [{low:+.2f}, {high:+.2f}]")
        others = [kind for kind in kinds if outcomes[kind] != outcomes[primary]]
        found.append(" ".join([sentence, *(_otherwise(kind, outcomes[kind], row) for kind in others), *_likelier(row)]))
    distinct = own.get("distinct_fraction", 1.0)
    if distinct < FEW_DISTINCT:
        found.append(f"Its summaries repeat each other: only {distinct:.0%} are distinct.")
    if empty := own.get("empty_fraction", 0.0):
        found.append(f"{empty:.1%} of its summaries are empty.")
    new, of_references = (own.get(f"{kind}new_number_fraction", 0.0) for kind in ("", "reference_"))
    if new or of_references:
        found.append(
            f"{new:.1%} of its summaries have a number that the source lacks (references: {of_references:.1%})."
        )
    return found


def _is_known(row: dict[str, Any], kind: str) -> bool:
    """Return whether the difference from a rival is defined: precision is not if there is nothing to be precise in."""
    value = row.get(f"{kind}_difference")
    return value is not None and math.isfinite(value)


def _cell(row: dict[str, Any], kind: str) -> str:
    ends = known_interval(row, kind)
    if not _has_value(row, kind):
        return "\N{EN DASH}"
    return f"{row[kind]:.2f}\n" + (f"\\[{ends[0]:.1f}, {ends[1]:.1f}]" if ends else "\N{EN DASH}")


def _has_value(row: dict[str, Any], kind: str) -> bool:
    return row.get(kind) is not None and math.isfinite(row[kind])


def _outcome_of(row: dict[str, Any], kind: str) -> str:
    low, high = row[f"{kind}_difference_ci"]
    if low is None or high is None:  # NaN, once it is in a file
        return "even"
    return _outcome(-high, -low) if SCORES[kind].better == "min" else _outcome(low, high)


def _outcome(low: float, high: float) -> str:
    return "better" if low > 0 else "worse" if high < 0 else "even"


def _sentence(name: str, outcome: str, lead: str) -> str:
    if name == SHUFFLED:
        reads = "It reads its document" if outcome == "better" else "It does not show that it reads its document"
        return f"{reads}: {lead} over being given another one."
    if name == ALONE:
        joined = "The source counts" if outcome == "better" else "The source is not shown to count"
        return f"{joined}: {lead} over its decoder without a source."
    rival = _rival(name)
    if outcome == "better":
        return f"It beats {rival}: {lead}."
    if outcome == "worse":
        return f"It does not beat {rival}: {lead}. {_BETTER.get(name, _BETTER['lead'])} would score better."
    return f"It is not distinguishable from {rival}: {lead}."


def _rival(name: str) -> str:
    return f"the {NAMES[name]}" if name in NAMES else name


def _too_few(name: str, examples: int, lead: str) -> str:
    count = "1 example is" if examples == 1 else f"{examples} examples are"
    question, over = {
        SHUFFLED: ("it reads its document", " over being given another one"),
        ALONE: ("the source counts", " over its decoder without a source"),
    }.get(name, (f"it beats {_rival(name)}", ""))
    return f"{count} too few to tell whether {question}, {FEWEST} are needed: {lead}{over}."


def _likelier(row: dict[str, Any]) -> list[str]:
    if "nll_difference" not in row:
        return []
    if broken := _not_finite(row):
        return broken
    low, high = row["nll_difference_ci"]
    word = {"better": "likelier", "worse": "less likely", "even": "neither likelier nor less likely"}
    gain = f"{-row['nll_difference']:+.3f} nats per token [{-high:+.3f}, {-low:+.3f}]"
    return [f"References are {word[_outcome(-high, -low)]} given its own source: {gain}."]


def _not_finite(row: dict[str, Any]) -> list[str]:
    value = row.get("nll_difference", 0.0)
    if value is not None and math.isfinite(value):
        return []
    return ["Likelihoods of references are not finite, so they are not compared."]


def _otherwise(kind: str, outcome: str, row: dict[str, Any]) -> str:
    low, high = row[f"{kind}_difference_ci"]
    word = {"better": "ahead", "worse": "behind", "even": "not distinguishable"}[outcome]
    return f"By {TITLES[kind]} it is {word}: {row[f'{kind}_difference']:+.2f} [{low:+.2f}, {high:+.2f}]."
