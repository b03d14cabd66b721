"""Find out what a fit scores, and how; before it trains."""

from typing import Any

from warmstart.config.metrics import metric_of
from warmstart.config.schema import Config
from warmstart.errors import UserError


def scored_splits(settings: Config) -> list[str]:
    """Return the splits that a fit scores."""
    from warmstart.training.callbacks.checkpoints import validates

    sampled = settings.trainer.validation_samples > 0 and validates(settings.trainer)
    return ["validation"] * sampled + ["test"] * settings.evaluation.test


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
