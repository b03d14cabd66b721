"""Find out what a fit scores, and how; before it trains."""

from typing import Any

from warmstart.config.metrics import metric_of
from warmstart.config.schema import Config
from warmstart.errors import UserError


def final_split(settings: Config) -> str | None:
    """Return the split on which a fit scores its best checkpoint at the end; None if it scores nothing."""
    if settings.evaluation.test:
        return "test"
    return "validation" if settings.trainer.validation_samples > 0 else None


def scored_splits(settings: Config) -> list[str]:
    """Return the splits that a fit scores."""
    from warmstart.training.callbacks.checkpoints import validates

    sampled = settings.trainer.validation_samples > 0 and validates(settings.trainer)
    final = final_split(settings)
    return ["validation"] * (sampled or final == "validation") + ["test"] * (final == "test")


def scorer_of_fit(settings: Config) -> Any:
    """Return the scorer of a fit; None if the fit scores nothing.

    Raises:
        UserError: no metric serves the language, or the monitored one does not.
    """
    from warmstart.evaluation.metrics import scorer_of

    splits, monitor = scored_splits(settings), settings.trainer.monitor
    if not splits:
        return None
    scorer = scorer_of(settings.evaluation, settings.data.language)
    reason = scorer.left_out.get(metric_of(monitor.removeprefix("validation/")) or "")
    if reason and "validation" in splits:
        raise UserError(f"trainer.monitor={monitor} cannot be computed. {reason} Set trainer.monitor to another score.")
    return scorer
