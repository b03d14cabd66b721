"""Values of a config that cannot work: out of their option's bounds, or in contradiction to each other.

Typed settings take any number, and most wrong ones fail late or not at all: a negative rate climbs the loss, a minimum
of tokens above their maximum ends in a summary of other length than was asked for.
"""

from difflib import get_close_matches
from typing import Any

from warmstart.config.evaluation import GenerationSettings
from warmstart.config.model import Scale
from warmstart.config.schema import OPTIONS, Config
from warmstart.config.training import MONITORS


def faults_of_numbers(settings: Config) -> list[str]:
    """One sentence for each value out of its option's bounds, and for each two values that contradict each other."""
    found = []
    for key, one in OPTIONS.items():
        value = _value(settings, key)
        if not one.bounds or value is None or one.bounds.allow(value):
            continue
        if one.bounds.choices:
            wrong = [str(choice) for choice in one.bounds.wrong_choices(value)]
            near = [name for choice in wrong for name in get_close_matches(choice, one.bounds.choices, 1)]
            hint = f" The nearest: {', '.join(near)}." if near else ""
            found.append(f"{key}={value} was asked for; there are {', '.join(one.bounds.choices)}.{hint}")
        else:
            verb = "lies" if str(one.bounds).startswith("from") else "is"
            found.append(f"{key}={value} was asked for: it {verb} {one.bounds}.")
    return found + _contradictions(settings)


def faults_of_ids(role: str, half: Any, vocabulary: float) -> list[str]:
    """Special ids that were named for a half and lie outside of its vocabulary."""
    found = []
    for name, value in half.architecture.items():
        ids = value if isinstance(value, list | tuple) else [value]
        if name.endswith("_token_id") and any(isinstance(i, int) and not 0 <= i < vocabulary for i in ids):
            found.append(f"{role}.architecture.{name}={value}: the vocabulary has {vocabulary} entries.")
    return found


def faults_of_search(
    generation: GenerationSettings, decoder: str, positions: int | None, vocabulary: float
) -> list[str]:
    """What a decoder of so many positions and tokens cannot do of a search."""
    found = []
    if positions is not None and generation.max_new_tokens > positions:
        found.append(
            f"generation.max_new_tokens={generation.max_new_tokens}, but decoder={decoder} has {positions} positions. "
            f"Set at most {positions}."
        )
    if generation.num_beams > vocabulary:
        found.append(f"generation.num_beams={generation.num_beams}: there are {vocabulary} tokens.")
    return found


def fault_of_warm_up(settings: Config, steps: int) -> str | None:
    """What is wrong with the warm-up of a fit of so many steps; debug=tiny may cut any choice short."""
    warm_up = settings.optim.warmup_steps
    if warm_up is None or warm_up < steps or Scale.tiny in (settings.encoder.scale, settings.decoder.scale):
        return None
    return (
        f"optim.warmup_steps={warm_up}, but the fit takes {steps} steps at most: the rates would never reach their "
        "peak. Warm up for fewer steps."
    )


def _contradictions(settings: Config) -> list[str]:
    optim, trainer, generation, found = settings.optim, settings.trainer, settings.generation, []
    if len(optim.betas) != 2 or not all(0 <= beta < 1 for beta in optim.betas):
        found.append(f"optim.betas={optim.betas}: AdamW takes two, from 0 to below 1.")
    if trainer.max_steps >= 1 and (fault := fault_of_warm_up(settings, trainer.max_steps)):
        found.append(fault)
    if generation.min_new_tokens > generation.max_new_tokens:
        found.append(
            f"generation.min_new_tokens={generation.min_new_tokens} is more than "
            f"generation.max_new_tokens={generation.max_new_tokens}."
        )
    better = MONITORS.get(trainer.monitor)
    if better is not None and trainer.monitor_mode in ("min", "max") and trainer.monitor_mode != better:
        found.append(
            f"trainer.monitor={trainer.monitor} with trainer.monitor_mode={trainer.monitor_mode} would keep the worst "
            f"checkpoint as the best. Set trainer.monitor_mode={better}."
        )
    if trainer.monitor.startswith("validation/rouge") and trainer.validation_samples == 0:
        found.append(
            f"trainer.monitor={trainer.monitor} needs trainer.validation_samples: nothing would be summarized."
        )
    return found


def _value(settings: Config, key: str) -> Any:
    value: Any = settings
    for name in key.split("."):
        value = getattr(value, name)
    return value
