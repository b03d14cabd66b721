"""Warn of a fit with too few steps or examples, and of generated lengths that contradict the training summaries.

Such a fit ends without an error and generates nonsense: words that do not depend on the source, or a summary of eight
words drawn out to fifty.
"""

import logging
import math
import statistics
from collections.abc import Sequence
from typing import Any

from warmstart.config.data import Objective
from warmstart.config.model import SELECTOR, Scale
from warmstart.config.schema import Config

FEW_STEPS = 50
FEW_EXAMPLES = (
    1000  # docs/results.md: with 260 new cross-attention is behind the first sentence, with 1,600 ahead of it
)
_ENOUGH_STEPS = 200
_SMALL_BATCH = 8
_log = logging.getLogger(__name__)


def warn_of_implausible(settings: Config, steps: int, label_lengths: Sequence[int], model: Any) -> None:
    """Log the warnings of ``implausible``, on one rank."""
    from lightning.pytorch.utilities import rank_zero_only

    warn = rank_zero_only(_log.warning)
    for warning in implausible(settings, steps, len(label_lengths), label_lengths, model):
        warn("%s", warning)


def implausible(
    settings: Config, steps: int, examples: int, label_lengths: Sequence[float], model: Any = None
) -> list[str]:
    """Return a warning for each setting that makes the summaries of a fit useless.

    Args:
        settings: the config of the fit.
        steps: optimizer steps of the whole fit.
        examples: number of training examples.
        label_lengths: lengths of training summaries in tokens, end token included, of all examples or a sample.
        model: the model, on any device; without it, whether its cross-attention is new is not considered.

    Returns:
        Sentences that name what to set. A number of steps that ``trainer.max_steps`` sets is not questioned.
    """
    trainer, generation = settings.trainer, settings.generation
    found = []
    chosen = 0 < trainer.max_steps <= steps
    if steps < FEW_STEPS and not chosen:
        found.append(
            f"The fit takes {steps} optimizer steps over {examples} training examples. Fewer than {FEW_STEPS} "
            f"hardly train the new cross-attention. {_more_steps(settings, examples)}"
        )
    if examples < FEW_EXAMPLES and model is not None and _has_to_learn_to_read(settings, model):
        found.append(
            f"The fit has {examples} training examples. With fewer than {FEW_EXAMPLES:,}, a model with new "
            "cross-attention usually scores below the first sentence of the document. A language model without an "
            "encoder needs fewer: encoder=none decoder=smollm2. Or train on texts without summaries first: "
            "data.objective=prefix, then ckpt_weights."
        )
    if settings.decoder.model_type == SELECTOR:  # its summaries are sentences of the document
        return found
    median, longest = int(statistics.median(label_lengths)), int(max(label_lengths))
    if generation.min_new_tokens > median:
        found.append(
            f"generation.min_new_tokens={generation.min_new_tokens}, but half of the training summaries have at most "
            f"{median} tokens. Generated ones are drawn out. Set generation.min_new_tokens=0 "
            f"generation.max_new_tokens={longest}."
        )
    elif generation.max_new_tokens < median / 3:
        found.append(
            f"generation.max_new_tokens={generation.max_new_tokens}, but half of the training summaries have at least "
            f"{median} tokens. Generated ones end too early. Set generation.max_new_tokens={longest}."
        )
    return found


def _has_to_learn_to_read(settings: Config, model: Any) -> bool:
    from warmstart.model.parameters import has_new_cross_attention

    is_tiny = Scale.tiny in (settings.encoder.scale, settings.decoder.scale)
    is_started = settings.ckpt_weights is not None or settings.data.objective is not Objective.summary
    return not is_tiny and not is_started and has_new_cross_attention(model)


def _more_steps(settings: Config, examples: int) -> str:
    trainer = settings.trainer
    if trainer.budget_minutes is not None:
        return "Raise trainer.budget_minutes, or set smaller batches (data.batch.max_tokens)."
    size = min(_SMALL_BATCH, settings.data.batch.size or _SMALL_BATCH)
    in_epoch = math.ceil(examples / (size * trainer.devices * trainer.nodes * trainer.accumulate))
    epochs = max(trainer.max_epochs, math.ceil(_ENOUGH_STEPS / in_epoch))
    return f"Set data.batch.size={size} trainer.max_epochs={epochs}."
