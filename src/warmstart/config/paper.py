"""The scores that a paper reports for a recipe: a target to compare a run with."""

from dataclasses import dataclass
from typing import Any

from warmstart.config.option import option


@dataclass
class PaperSettings:
    """A row of a paper's table, which ``task=report`` shows next to the run."""

    source: str | None = option(None, doc="The paper and its row, such as `Rothe et al. 2020, BERT2BERT`.")
    scores: dict[str, dict[str, float]] = option(
        default_factory=dict,
        doc="Scores of the paper on the whole test split, by `data.name` and by name of the score, such as "
        "`{xsum: {rouge1: 37.53}}`.",
    )


def paper_of(paper: PaperSettings, data: str) -> dict[str, Any] | None:
    """Return what the paper reports for a data set, as ``result.json`` records it; None if it reports nothing.

    Args:
        paper: The settings.
        data: Name of the data set (``data.name``).

    Returns:
        ``source`` and ``scores``.
    """
    if not paper.source or data not in paper.scores:
        return None
    return {"source": paper.source, "scores": dict(paper.scores[data])}


def faults_of_paper(paper: PaperSettings, known: set[str]) -> list[str]:
    """Return a message for each data set with scores that do not exist.

    Args:
        paper: The settings.
        known: The names of all scores.
    """
    found = []
    for data, scores in paper.scores.items():
        if unknown := sorted(scores.keys() - known):
            found.append(
                f"evaluation.paper.scores.{data} has {', '.join(unknown[:10])}, which no metric computes. Use the "
                "names in result.json, such as rouge1 or bleu."
            )
    return found
