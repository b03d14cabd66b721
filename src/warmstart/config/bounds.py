"""Find invalid settings in a config: values that are out of bounds, and values that contradict each other.

The types of the settings accept any number, and most wrong numbers fail late or silently. A negative learning rate
increases the loss; a minimum length above the maximum gives summaries of the wrong length.
"""

import re
from difflib import get_close_matches
from typing import Any

from warmstart.config.data import SourceForm, Truncation
from warmstart.config.evaluation import GenerationSettings, LengthPenaltyKind
from warmstart.config.metrics import METRICS, SCORES, metric_of, primary_score
from warmstart.config.model import NO_ENCODER, SELECTOR, Embeddings, Scale
from warmstart.config.paper import faults_of_paper
from warmstart.config.schema import OPTIONS, Config
from warmstart.config.training import MONITORS, NewOptimizer


def faults_of_numbers(settings: Config) -> list[str]:
    """Return a message for each value that is out of bounds, and for each pair of values that contradict each other."""
    return values_out_of_bounds(settings) + _contradictions(settings)


def values_out_of_bounds(settings: Config) -> list[str]:
    """Return a message for each value that is out of its option's bounds."""
    found = []
    for key, one in OPTIONS.items():
        value = _value(settings, key)
        if not one.bounds or value is None or one.bounds.allow(value):
            continue
        kind = "value" if one.bounds.choices else "number"
        wrong = [str(choice) for choice in one.bounds.wrong_choices(value)] if one.bounds.choices else []
        near = [name for choice in wrong for name in get_close_matches(choice, one.bounds.choices, 1)]
        hint = f" Did you mean {', '.join(near)}?" if near else ""
        found.append(f"{key}={value} is invalid. Set a {kind} that is {one.bounds}.{hint}")
    return found


def faults_of_ids(role: str, submodel: Any, vocabulary: float) -> list[str]:
    """Return a message for each special id in ``architecture`` that is not in the vocabulary.

    Args:
        role: ``encoder`` or ``decoder``.
        submodel: The settings of this submodel.
        vocabulary: Number of entries of its vocabulary.
    """
    found = []
    for name, value in submodel.architecture.items():
        ids = value if isinstance(value, list | tuple) else [value]
        if name.endswith("_token_id") and any(isinstance(i, int) and not 0 <= i < vocabulary for i in ids):
            found.append(
                f"{role}.architecture.{name}={value} is not in the vocabulary, which has {vocabulary} entries. "
                f"Set ids from 0 to {vocabulary - 1}."
            )
    return found


def faults_of_search(
    generation: GenerationSettings, decoder: str, positions: int | None, vocabulary: float, prompt: int = 0
) -> list[str]:
    """Return a message for each generation setting that the decoder does not allow.

    Args:
        generation: The ``generation`` group of the config.
        decoder: Name of the decoder, for messages.
        positions: Largest number of positions of the decoder; None if it has no limit.
        vocabulary: Number of entries of its vocabulary.
        prompt: Number of ids between the start id and the summary.
    """
    found = []
    if positions is not None and generation.max_new_tokens + prompt > positions:
        found.append(
            f"generation.max_new_tokens={generation.max_new_tokens}, but decoder={decoder} has {positions} positions"
            f"{f', of which the prompt takes {prompt}' if prompt else ''}. Set at most {positions - prompt}."
        )
    if generation.num_beams > vocabulary:
        found.append(
            f"generation.num_beams={generation.num_beams}, but the vocabulary of decoder={decoder} has only "
            f"{vocabulary} tokens. Set fewer beams."
        )
    return found


def faults_of_one_sequence(settings: Config, positions: int | None) -> list[str]:
    """Return a message if source and target do not fit into the decoder's positions together (``encoder=none``).

    Args:
        settings: The whole config.
        positions: Largest number of positions of the decoder; None if it has no limit.
    """
    data, new = settings.data, settings.generation.max_new_tokens
    longest = data.max_source_length + max(data.max_target_length, new)
    if settings.encoder.model_type != NO_ENCODER:
        return []
    if data.source_windows > 1:
        return [
            f"data.source_windows={data.source_windows} needs an encoder, which encoder=none lacks. Choose an encoder, "
            "or leave it out."
        ]
    if positions is None or longest <= positions:
        return []
    return [
        f"data.max_source_length={data.max_source_length}, but with encoder=none source and target are one sequence, "
        f"and decoder={settings.decoder.name} has {positions} positions. Lower it, data.max_target_length="
        f"{data.max_target_length} or generation.max_new_tokens={new} by {longest - positions}."
    ]


def fault_of_warm_up(settings: Config, steps: int) -> str | None:
    """Return the message if the learning rates would still be warming up at the end of the fit, else None.

    Tiny models are exempt, because ``debug=tiny`` shortens any fit to a few steps.

    Args:
        settings: The whole config.
        steps: Optimizer steps of the fit.
    """
    warm_up = settings.optim.warmup_steps
    if warm_up is None or warm_up < steps or Scale.tiny in (settings.encoder.scale, settings.decoder.scale):
        return None
    return (
        f"optim.warmup_steps={warm_up}, but the fit takes at most {steps} optimizer steps: the learning rates would "
        "never reach their peak. Set fewer warm-up steps."
    )


def _contradictions(settings: Config) -> list[str]:
    optim, trainer, generation, found = settings.optim, settings.trainer, settings.generation, []
    if len(optim.betas) != 2 or not all(0 <= beta < 1 for beta in optim.betas):
        found.append(f"optim.betas={optim.betas} is invalid. Set two numbers from 0 to below 1.")
    if optim.new_optimizer is NewOptimizer.muon and trainer.strategy == "fsdp":
        found.append(
            "optim.new_optimizer=muon does not work with trainer.strategy=fsdp, which splits the matrices. Set "
            "trainer.strategy=ddp, or optim.new_optimizer=adamw."
        )
    if trainer.max_steps >= 1 and (fault := fault_of_warm_up(settings, trainer.max_steps)):
        found.append(fault)
    if trainer.devices * trainer.nodes > 1 and (trainer.budget_minutes is not None or trainer.measure_threads):
        found.append(
            "trainer.budget_minutes and trainer.measure_threads time steps on one device, but trainer.devices times "
            f"trainer.nodes is {trainer.devices * trainer.nodes}. Set trainer.budget_minutes=null "
            "trainer.measure_threads=false."
        )
    if trainer.epochs_per_validation > 1 and trainer.validations_per_epoch > 1:
        found.append(
            f"trainer.epochs_per_validation={trainer.epochs_per_validation} contradicts "
            f"trainer.validations_per_epoch={trainer.validations_per_epoch}. Set one of them to 1."
        )
    if generation.min_new_tokens > generation.max_new_tokens:
        found.append(
            f"generation.min_new_tokens={generation.min_new_tokens} is more than "
            f"generation.max_new_tokens={generation.max_new_tokens}. Lower the minimum or raise the maximum."
        )
    is_own_penalty = generation.length_penalty_kind is not LengthPenaltyKind.transformers
    if is_own_penalty and generation.do_sample and generation.num_beams > 1:
        found.append(
            f"generation.length_penalty_kind={generation.length_penalty_kind.value} contradicts "
            "generation.do_sample=true: beams of sampled tokens are scored by transformers. Set one of them."
        )
    better = MONITORS.get(trainer.monitor)
    if better is not None and trainer.monitor_mode in ("min", "max") and trainer.monitor_mode != better:
        found.append(
            f"trainer.monitor={trainer.monitor} with trainer.monitor_mode={trainer.monitor_mode} would choose the "
            f"worst checkpoint as the best. Set trainer.monitor_mode={better}."
        )
    metric = metric_of(trainer.monitor.removeprefix("validation/"))
    if metric is not None and trainer.validation_samples == 0:
        found.append(
            f"trainer.monitor={trainer.monitor} needs summaries, but trainer.validation_samples=0 generates none. "
            "Set trainer.validation_samples to 1 or more."
        )
    data = settings.data
    if data.window_overlap and data.source_windows == 1:
        found.append(
            f"data.window_overlap={data.window_overlap} has no effect with data.source_windows=1. Set "
            "data.source_windows to 2 or more, or leave the overlap out."
        )
    elif data.window_overlap >= data.max_source_length - 1:
        found.append(
            f"data.window_overlap={data.window_overlap} repeats all of a window of "
            f"data.max_source_length={data.max_source_length} tokens. Lower the overlap."
        )
    found += _contradictions_of_sentences(settings)
    if data.prompt_as_chat and not data.prompt:
        found.append("data.prompt_as_chat=true needs a prompt. Set data.prompt, such as data.prompt='Summarize:'.")
    if not re.fullmatch("[a-z]{2,3}", settings.data.language):
        found.append(
            f"data.language={settings.data.language} is invalid. Set an ISO 639 code of two or three small letters, "
            "such as en, de, hi or zh."
        )
    found += faults_of_paper(settings.evaluation.paper, set(SCORES))
    return found + _faults_of_metrics(settings, metric) + _faults_of_averages(settings)


def _contradictions_of_sentences(settings: Config) -> list[str]:
    data, found = settings.data, []
    selects = settings.decoder.model_type == SELECTOR
    if data.source_form is SourceForm.sentences or selects:
        marking = "a decoder that selects sentences" if selects else "data.source_form=sentences"
        if (
            data.source_windows > 1
            or data.truncation is not Truncation.head
            or settings.encoder.model_type == NO_ENCODER
        ):
            found.append(
                f"With {marking} the sentences of one window are marked, which is cut at its end. Leave out "
                "data.source_windows, data.truncation and encoder=none."
            )
    if selects and (data.prompt or data.start_tokens or settings.bridge.embeddings is Embeddings.copy):
        found.append(
            f"decoder={settings.decoder.name} selects sentences and writes no tokens. Leave out data.prompt, "
            "data.start_tokens and bridge.embeddings=copy."
        )
    if selects and settings.trainer.monitor == "validation/source_effect":
        found.append(
            f"trainer.monitor=validation/source_effect is not computed for decoder={settings.decoder.name}: its labels "
            "are those of one document's sentences. Set trainer.monitor=validation/rouge1, or validation/loss with "
            "trainer.monitor_mode=min."
        )
    return found


def _faults_of_metrics(settings: Config, monitored: str | None) -> list[str]:
    evaluation, found = settings.evaluation, []
    metrics = [metric for metric in evaluation.metrics if metric in METRICS]  # others are reported as out of bounds
    if monitored is not None and monitored not in metrics:
        together = ",".join([*metrics, monitored])
        found.append(
            f"trainer.monitor={settings.trainer.monitor} is a score of {monitored}, which evaluation.metrics does not "
            f"name. Set evaluation.metrics=[{together}]."
        )
    try:
        primary_score(metrics)
    except ValueError:
        found.append(
            f"evaluation.metrics={evaluation.metrics} has no score of which more or less is better, so nothing can be "
            "compared. Add one that has, such as rouge."
        )
    if "bertscore" in metrics and evaluation.bertscore_model is None:
        found.append("The metric bertscore needs a model. Set evaluation.bertscore_model to a folder or a hub id.")
    return found


def _faults_of_averages(settings: Config) -> list[str]:
    trainer, found = settings.trainer, []
    chosen = f"trainer.ema_decay={trainer.ema_decay}" if trainer.ema_decay is not None else ""
    if chosen and trainer.precision in ("bf16-true", "16-true"):
        found.append(
            f"{chosen} needs weights in 32 bits, but trainer.precision={trainer.precision} has 16: most updates of an "
            f"average would be rounded to nothing. Set trainer.precision={trainer.precision.partition('-')[0]}-mixed."
        )
    chosen = chosen or (f"trainer.average_best={trainer.average_best}" if trainer.average_best > 1 else "")
    if chosen and trainer.strategy != "auto" and not trainer.strategy.startswith("ddp"):
        found.append(
            f"{chosen} averages whole weights, which trainer.strategy={trainer.strategy} may split over devices. Set "
            "trainer.strategy=ddp, or leave the average out."
        )
    return found


def _value(settings: Config, key: str) -> Any:
    value: Any = settings
    for name in key.split("."):
        value = getattr(value, name)
    return value
