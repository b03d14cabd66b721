"""The table at the end of a run: the model, its baselines and its controls, and what the scores mean."""

import math
from typing import Any

from rich.table import Table

from warmstart.evaluation.baselines import LABELS
from warmstart.evaluation.bootstrap import FEWEST
from warmstart.evaluation.judgement import Judgement
from warmstart.evaluation.likelihood import ALONE, SHUFFLED
from warmstart.evaluation.rouge import KINDS

NAMES = {SHUFFLED: "another document", ALONE: "decoder alone", **LABELS}
SAID = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L", "rougeLsum": "ROUGE-Lsum"}
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
    rows = {model_name: {name.removeprefix("test/"): value for name, value in metrics.items()}}
    return rows | {NAMES.get(name, name): row for name, row in (baselines | controls).items()}


def score_table(judgement: Judgement, model_name: str) -> Table:
    """Make the table: F1 times 100 of each ROUGE, above its 95 % interval; 80 columns wide with a short model name."""
    table = Table(title=f"ROUGE F1 on {judgement.metrics['test/examples']} test examples, 95 % bootstrap intervals")
    table.add_column("", overflow="fold")
    for kind in KINDS:
        table.add_column(SAID[kind], justify="right", no_wrap=True)
    for name, row in score_rows(judgement.metrics, judgement.baselines, judgement.controls, model_name).items():
        table.add_row(name.replace("[", r"\["), *(_cell(row, kind) for kind in KINDS))
    return table


def known_interval(row: dict[str, Any], name: str) -> tuple[float, float] | None:
    """Return the interval of a score; None for one example, or for values that are not finite."""
    low, high = row[f"{name}_ci"]
    if any(end is None or not math.isfinite(end) for end in (low, high)):  # null in result.json, NaN before
        return None
    return low, high


def verdict(judgement: Judgement) -> str:
    """Return the ``statements`` of a judgement, one per line."""
    return "\n".join(statements(judgement.metrics, judgement.baselines, judgement.controls))


def statements(metrics: dict[str, Any], baselines: dict[str, Any], controls: dict[str, Any]) -> list[str]:
    """State the result against each rival, from the paired interval of ROUGE-1.

    Other kinds of ROUGE are stated if they disagree. With fewer than ``FEWEST`` examples no conclusion is drawn.

    Args:
        metrics: Scores of the model, as in ``Judgement``.
        baselines: Scores of the baselines.
        controls: Scores of the controls.

    Returns:
        One to three sentences for each rival, and one each if few summaries are distinct, some are empty, or numbers
        are not from the source.
    """
    found = []
    for name, row in (controls | baselines).items():
        examples = row.get("examples", metrics.get("test/examples", FEWEST))
        if examples < FEWEST:
            few = _too_few(name, examples, f"{row['rouge1_difference']:+.2f} ROUGE-1")
            found.append(" ".join([few, *_not_finite(row)]))
            continue
        kinds = [kind for kind in KINDS if f"{kind}_difference_ci" in row]
        outcomes = {kind: _outcome(*row[f"{kind}_difference_ci"]) for kind in kinds}
        low, high = row["rouge1_difference_ci"]
        lead = f"{row['rouge1_difference']:+.2f} ROUGE-1 [{low:+.2f}, {high:+.2f}]"
        sentence = _sentence(name, outcomes["rouge1"], lead)
        others = [kind for kind in kinds if outcomes[kind] != outcomes["rouge1"]]
        found.append(" ".join([sentence, *(_otherwise(kind, outcomes[kind], row) for kind in others), *_likelier(row)]))
    distinct = metrics.get("test/distinct_fraction", 1.0)
    if distinct < FEW_DISTINCT:
        found.append(f"Its summaries repeat each other: only {distinct:.0%} are distinct.")
    if empty := metrics.get("test/empty_fraction", 0.0):
        found.append(f"{empty:.1%} of its summaries are empty.")
    new, of_references = (metrics.get(f"test/{kind}new_number_fraction", 0.0) for kind in ("", "reference_"))
    if new or of_references:
        found.append(
            f"{new:.1%} of its summaries have a number that the source lacks (references: {of_references:.1%})."
        )
    return found


def _cell(row: dict[str, Any], kind: str) -> str:
    ends = known_interval(row, kind)
    return f"{row[kind]:.2f}\n" + (f"\\[{ends[0]:.1f}, {ends[1]:.1f}]" if ends else "\N{EN DASH}")


def _outcome(low: float, high: float) -> str:
    return "better" if low > 0 else "worse" if high < 0 else "even"


def _sentence(name: str, outcome: str, lead: str) -> str:
    if name == SHUFFLED:
        reads = "It reads its document" if outcome == "better" else "It does not show that it reads its document"
        return f"{reads}: {lead} over being given another one."
    if name == ALONE:
        joined = "The source counts" if outcome == "better" else "The source is not shown to count"
        return f"{joined}: {lead} over its decoder alone."
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
        ALONE: ("the source counts", " over its decoder alone"),
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
    return f"By {SAID[kind]} it is {word}: {row[f'{kind}_difference']:+.2f} [{low:+.2f}, {high:+.2f}]."
