"""Numbers of a config that cannot work: each key's bounds, and numbers that contradict each other.

Typed settings take any number, and most wrong ones fail late or not at all: a negative rate climbs the loss, a minimum
of tokens above their maximum ends in a summary of other length than was asked for.
"""

import math
from typing import Any

from warmstart.config.evaluation import GenerationSettings
from warmstart.config.model import Scale
from warmstart.config.schema import Config

_AT_LEAST: dict[str, float] = {
    **dict.fromkeys(("trainer.max_epochs", "trainer.devices", "trainer.nodes", "trainer.accumulate"), 1),
    **dict.fromkeys(("trainer.validations_per_epoch", "trainer.log_every", "trainer.keep_last"), 1),
    **dict.fromkeys(("trainer.save_every", "trainer.patience"), 1),
    **dict.fromkeys(("trainer.clip_norm", "trainer.skip_limit", "trainer.validation_samples", "logger.samples"), 0),
    **dict.fromkeys(("optim.weight_decay", "optim.warmup_steps", "data.batch.workers"), 0),
    **dict.fromkeys(("data.batch.max_tokens", "data.batch.size", "data.batch.bucket"), 1),
    **dict.fromkeys(("data.evaluation_max_tokens", "data.processes"), 1),
    **dict.fromkeys(("data.limit_train", "data.limit_validation", "data.limit_test"), 1),
    **dict.fromkeys(("generation.num_beams", "generation.max_new_tokens"), 1),
    **dict.fromkeys(("generation.min_new_tokens", "generation.no_repeat_ngram_size"), 0),
    **dict.fromkeys(("evaluation.lead_sentences", "evaluation.bootstrap_samples", "evaluation.control_shuffles"), 1),
    **dict.fromkeys(("evaluation.control_samples", "bridge.warmup_steps"), 0),
    **dict.fromkeys(("bridge.lora_rank", "bridge.lora_alpha", "bridge.every_n_layers"), 1),
    **dict.fromkeys(("data.max_source_length", "data.max_target_length"), 2),
}
_FROM_TO: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("optim.encoder_rate", "optim.decoder_rate", "optim.new_rate", "optim.gate_rate"), (0, 1)),
    "optim.warmup_fraction": (0, 1),
    "generation.temperature": (1e-4, 1e4),  # scores divided by less leave float32, by more they are all the same
    "generation.length_penalty": (-10, 10),  # a length to the power of more leaves float32
    "seed": (0, 2**32 - 1),
}
_FROM_TO_BELOW: dict[str, tuple[float, float]] = {"optim.label_smoothing": (0, 1), "bridge.dropout": (0, 1)}
_ABOVE_UP_TO: dict[str, tuple[float, float]] = {
    "generation.top_p": (0, 1),
    "trainer.max_minutes": (0, 5_256_000),  # ten years; 1.44e12 no longer fit into a timedelta
    "trainer.timeout_minutes": (0, 10_000),
}


def faults_of_numbers(settings: Config) -> list[str]:
    """One sentence for each number out of its bounds, and for each two that contradict each other."""
    found = []
    # Written so that NaN, which no comparison holds for, is out of every bound.
    for key, low in _AT_LEAST.items():
        if (value := _value(settings, key)) is not None and not low <= value < math.inf:
            found.append(f"{key}={value} was asked for: it is at least {low}.")
    for key, (low, high) in _FROM_TO.items():
        if (value := _value(settings, key)) is not None and not low <= value <= high:
            found.append(f"{key}={value} was asked for: it lies from {low} to {high}.")
    for key, (low, high) in _FROM_TO_BELOW.items():
        if (value := _value(settings, key)) is not None and not low <= value < high:
            found.append(f"{key}={value} was asked for: it lies from {low} to below {high}.")
    for key, (low, high) in _ABOVE_UP_TO.items():
        if (value := _value(settings, key)) is not None and not low < value <= high:
            limit = f", and at most {high}" if high < math.inf else ""
            found.append(f"{key}={value} was asked for: it is above {low}{limit}.")
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
    if not (trainer.max_steps == -1 or trainer.max_steps >= 1):
        found.append(f"trainer.max_steps={trainer.max_steps} was asked for: it is at least 1, or -1 for no bound.")
    elif trainer.max_steps >= 1 and (fault := fault_of_warm_up(settings, trainer.max_steps)):
        found.append(fault)
    if generation.min_new_tokens > generation.max_new_tokens:
        found.append(
            f"generation.min_new_tokens={generation.min_new_tokens} is more than "
            f"generation.max_new_tokens={generation.max_new_tokens}."
        )
    if trainer.monitor_mode not in ("min", "max"):
        found.append(f"trainer.monitor_mode={trainer.monitor_mode} was asked for; there are min and max.")
    wanted = {"validation/loss": "min", "validation/source_effect": "max"}
    wanted |= {f"validation/{kind}": "max" for kind in ("rouge1", "rouge2", "rougeL", "rougeLsum")}
    if trainer.monitor not in wanted:
        found.append(f"trainer.monitor={trainer.monitor} was asked for; there are {', '.join(wanted)}.")
    elif trainer.monitor_mode in ("min", "max") and trainer.monitor_mode != wanted[trainer.monitor]:
        found.append(
            f"trainer.monitor={trainer.monitor} with trainer.monitor_mode={trainer.monitor_mode} would keep the worst "
            f"checkpoint as the best. Set trainer.monitor_mode={wanted[trainer.monitor]}."
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
