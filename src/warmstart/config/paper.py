"""The scores that a paper reports for a recipe: a target to compare a run with."""

from dataclasses import dataclass
from typing import Any

from warmstart.config.metrics import TITLES
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


def described(settings: Any) -> list[str]:
    """Describe what a recipe of a paper has set and its target, as lines for ``task=check``; empty for other configs.

    Args:
        settings: The whole config.
    """
    paper, data, trainer = settings.evaluation.paper, settings.data, settings.trainer
    if not paper.source:
        return []
    batch = (data.batch.size or 0) * trainer.accumulate * trainer.devices * trainer.nodes
    examples = f"{batch} examples a step" if batch and data.batch.max_tokens is None else "batches by tokens"
    length = f"{trainer.max_steps:,} steps" if trainer.max_steps > 0 else f"{trainer.max_epochs} epochs"
    rates = f"{settings.optim.decay.value}, {settings.optim.warmup_steps} warm-up steps"
    tokens = f"{data.max_source_length} + {data.max_target_length} tokens"
    lines = [f"  recipe      at most {tokens}, {examples}, {length}; {rates}"]
    found = paper_of(paper, data.name)
    if found is None:
        return [*lines, f"  target      none: {paper.source} has no scores for data={data.name}"]
    scores = ", ".join(f"{TITLES[name]} {value:g}" for name, value in found["scores"].items())
    return [*lines, f"  target      {paper.source} on {data.name}: {scores}"]
