"""Choose the length of a fit, its learning rates and its text lengths from the user's own texts.

    recipe = recipe_for(settings, explicit)
    recipe.settings.trainer.max_epochs

The choices depend on the texts and on the config only, never on the machine, so that a run resumes with the same values
wherever it started. Numbers of tokens are estimated from words and bytes: no tokenizer is loaded. ``task=check`` shows
the values of the fit; only ``encoder=hf`` and ``decoder=hf`` need a file of the hub for it, ``config.json``.
"""

import logging
import math
import string
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from warmstart.config.bounds import values_out_of_bounds
from warmstart.config.data import DataKind, Objective
from warmstart.config.explicit import CommandLine, explicit_options
from warmstart.config.model import AUTO_TYPE, NO_ENCODER, SubmodelSettings, Weights
from warmstart.config.schema import OPTIONS, Config
from warmstart.config.training import Recipe
from warmstart.data.hub_access import hub_reachable
from warmstart.data.sources.base import SPLITS
from warmstart.data.sources.files import SPLIT_SHARE
from warmstart.data.sources.load import load_source
from warmstart.data.tokenization.source_layout import SourceLayout
from warmstart.errors import UserError

SAMPLED_TEXTS = 2000
TOKENS_PER_WORD = 1.3
BYTES_PER_TOKEN = 5.0  # counts where words are not separated by blanks
BYTES_PER_TOKEN_IN_OTHER_SCRIPTS = 1.5  # of a tokenizer of English; one of many languages has up to 5
LONG = 1.75  # a text with many rare words has this many times the estimated tokens
BATCH_SIZES = ((1_000, 4), (10_000, 8), (100_000, 16), (math.inf, 32))  # examples, for fewer rows than
STEPS_PER_ROOT = 20  # optimizer steps of a fit: this times the square root of the training rows
FEWEST_STEPS, FEWEST_EPOCHS = 200, 2
VALIDATIONS = 8  # in a fit of many epochs
FEWEST_STEPS_TO_VALIDATION = 10  # estimated ones; an epoch must not have fewer steps than validations
FEWEST_VALIDATION_ROWS = 10  # with fewer, the loss does not tell which checkpoint is best
LONGEST_SOURCE, LONGEST_TARGET = 512, 384
SHORT_TARGET = 40  # tokens; a minimum length would only draw out shorter summaries
TUNED_HIDDEN_SIZE = 384  # of the models that the learning rates were tuned with; larger ones need lower learning rates
BERT_BASE = 768
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """A value that the recipe chose."""

    key: str
    value: Any
    reason: str

    def __str__(self) -> str:
        value = f"{self.value:.3g}" if isinstance(self.value, float) else self.value
        return f"{self.key}={value}  ({self.reason})"


@dataclass(frozen=True)
class ChosenSettings:
    """The config of a fit, and what the recipe chose in it."""

    settings: Config
    choices: Sequence[Choice] = ()


@dataclass(frozen=True)
class _Texts:
    """What the recipe knows of the texts: rows, different documents, and estimated tokens of a sample."""

    rows: int
    documents: int
    sources: np.ndarray
    targets: np.ndarray
    fewest: np.ndarray
    """The tokens of the same targets for a tokenizer that knows their language."""
    splits_off: int
    """How many of the validation and the test split are taken from the training split."""
    given_validation: int | None
    """Examples of the validation split, if it is not taken from the training split."""


def with_recipe(settings: Config, line: CommandLine | None = None) -> ChosenSettings:
    """Apply ``trainer.recipe`` to the config of a fit.

    Args:
        settings: The composed config.
        line: What it was composed from; None is the command line of this process.

    Returns:
        The config to use. It is unchanged outside of a Hydra application, with an experiment, for data other than the
        user's files, and if these cannot be read or a value is out of bounds, which the fit reports itself.
    """
    line = line or CommandLine.current()
    if line is None or line.names_whole_run or settings.trainer.recipe is Recipe.none:
        return ChosenSettings(settings)
    return recipe_for(settings, explicit_options(settings, line))


def recipe_for(settings: Config, explicit: Collection[str]) -> ChosenSettings:
    """Choose every option of the recipe that is not in ``explicit``.

    Args:
        settings: The config.
        explicit: Keys of the options that keep their values.
    """
    if settings.data.kind is not DataKind.files or settings.data.objective is not Objective.summary:
        return ChosenSettings(settings)
    if values_out_of_bounds(settings):  # such as no devices, to divide by
        return ChosenSettings(settings)
    try:
        texts = _texts_of(settings)
    except (UserError, OSError):  # every task that uses the choices reads the texts too, and reports it
        return ChosenSettings(settings)
    chosen = []
    for choose in (_splits, _lengths, _shortest, _batches, _epochs, _validations, _learning_rates):
        for choice in choose(settings, texts, explicit):
            if choice.key not in explicit and choice.value != _value(settings, choice.key):
                settings = _replaced(settings, choice.key.split("."), choice.value)
                chosen.append(choice)
    return ChosenSettings(settings, chosen)


def log_choices(chosen: ChosenSettings) -> None:
    """Log the choices on one rank."""
    from lightning.pytorch.utilities import rank_zero_only

    if chosen.choices:
        lines = [f"\n  {choice}" for choice in chosen.choices]
        rank_zero_only(_log.info)("Chosen by trainer.recipe=auto; each can be set:%s", "".join(lines))


def _texts_of(settings: Config) -> _Texts:
    splits = [split for split in SPLITS if split != "test" or settings.evaluation.test]
    source = load_source(settings.data, splits, overlaps=False)  # other splits than those of the fit
    train = source.split("train")
    off = [split for split in ("validation", "test") if f"{split}_split_off" in source.report]
    some = [train[i] for i in range(0, len(train), math.ceil(len(train) / SAMPLED_TEXTS))]
    documents = len({example.document for example in some})
    return _Texts(
        rows=source.report["train_read"] + sum(source.report[f"{split}_split_off"] for split in off),
        documents=documents,
        sources=np.array([_tokens(example.document) for example in some]),
        targets=np.array([_tokens(example.summary) for example in some]),
        fewest=np.array([_fewest_tokens(example.summary) for example in some]),
        splits_off=len(off),
        given_validation=None if "validation" in off else source.report["validation_examples"],
    )


def _tokens(text: str) -> float:
    content = text.encode(errors="replace")
    others = content.translate(None, string.ascii_letters.encode() + string.whitespace.encode())
    letters = len(content.translate(None, string.whitespace.encode())) - len(others)
    if letters >= len(others.decode()):
        return _fewest_tokens(text)
    return len(content) / BYTES_PER_TOKEN_IN_OTHER_SCRIPTS + 2


def _fewest_tokens(text: str) -> float:
    return max(TOKENS_PER_WORD * len(text.split()), len(text.encode(errors="replace")) / BYTES_PER_TOKEN) + 2


def _splits(settings: Config, texts: _Texts, explicit: Collection[str]) -> list[Choice]:
    at_least = max(1, min(texts.documents // 5, 20))
    if not texts.splits_off:
        return []
    return [Choice("data.split_at_least", at_least, f"5 % of {texts.rows} rows are too few to score")]


def _lengths(settings: Config, texts: _Texts, explicit: Collection[str]) -> list[Choice]:
    source = min(LONGEST_SOURCE, _whole(LONG * np.quantile(texts.sources, 0.99)))
    target = min(LONGEST_TARGET, _whole(LONG * np.quantile(texts.targets, 0.99)))
    has_other_scripts = bool((texts.targets > texts.fewest).mean() > 0.01)
    of_targets = f"99 % of the summaries have about {np.quantile(texts.targets, 0.99):.0f} tokens or fewer"
    limits = [
        Choice(key, least, "the default: how many tokens letters other than a to z need depends on the tokenizer")
        if has_other_scripts and target < (least := OPTIONS[key].default)
        else Choice(key, target, of_targets)
        for key in ("data.max_target_length", "generation.max_new_tokens")
    ]
    twice = 2 * settings.generation.min_new_tokens if "generation.min_new_tokens" in explicit else 0
    if limits[1].value < twice:
        limits[1] = replace(limits[1], value=twice, reason="twice generation.min_new_tokens")
    return [
        Choice(
            "data.max_source_length",
            source,
            f"99 % of the documents have about {np.quantile(texts.sources, 0.99):.0f} tokens or fewer",
        ),
        *limits,
    ]


def _shortest(settings: Config, texts: _Texts, explicit: Collection[str]) -> list[Choice]:
    shortest, longest = float(np.quantile(texts.fewest, 0.1)), settings.generation.max_new_tokens
    shown = f"90 % of the summaries have about {shortest:.0f} tokens or more"
    least, of_least = 0 if shortest < SHORT_TARGET else int(shortest / 2), shown
    if least > longest // 2:
        least, of_least = longest // 2, f"at most half of generation.max_new_tokens={longest}"
    return [
        Choice("generation.min_new_tokens", least, of_least),
        Choice("generation.length_penalty", 1.0 if shortest < SHORT_TARGET else 2.0, shown),
    ]


def _batches(settings: Config, texts: _Texts, explicit: Collection[str]) -> list[Choice]:
    size = next(size for rows, size in BATCH_SIZES if texts.rows < rows)
    tokens = size * _mean_tokens(settings, texts)
    if settings.data.batch.size is not None:
        return []
    return [Choice("data.batch.max_tokens", _whole(1.2 * tokens), f"about {size} examples for {texts.rows} rows")]


def _epochs(settings: Config, texts: _Texts, explicit: Collection[str]) -> list[Choice]:
    train, in_epoch = _train_rows(settings, texts), _steps_in_epoch(settings, texts)
    wanted = STEPS_PER_ROOT * math.sqrt(train)
    epochs = max(FEWEST_EPOCHS, math.ceil(FEWEST_STEPS / in_epoch), round(wanted / in_epoch))
    steps = f"about {epochs * in_epoch} optimizer steps for {train} training rows, {in_epoch} an epoch"
    return [Choice("trainer.max_epochs", epochs, steps), Choice("optim.warmup_fraction", 0.1, "the fit is short")]


def _validations(settings: Config, texts: _Texts, explicit: Collection[str]) -> list[Choice]:
    trainer, epochs = settings.trainer, settings.trainer.max_epochs
    held_out = texts.given_validation or max(settings.data.split_at_least, round(SPLIT_SHARE * texts.rows))
    if held_out < FEWEST_VALIDATION_ROWS:
        each, every, patience = 1, epochs, None
        often = f"about {held_out} validation rows are too few to choose a checkpoint by, so the last one is used"
    else:
        most = _steps_in_epoch(settings, texts) // FEWEST_STEPS_TO_VALIDATION
        each = max(1, min(most, math.ceil(VALIDATIONS / 2 / epochs)))
        every = max(1, epochs // VALIDATIONS)
        patience = 3
        often = "about {} validations in the fit"
    # Only one of the two can be above 1. Here such a value is the user's.
    if trainer.validations_per_epoch > 1:
        each, every = trainer.validations_per_epoch, 1
    elif trainer.epochs_per_validation > 1:
        each, every = 1, trainer.epochs_per_validation
    often = often.format(max(1, epochs // every) * each)
    return [
        Choice("trainer.validations_per_epoch", each, often),
        Choice("trainer.epochs_per_validation", every, often),
        Choice("trainer.validation_samples", 16, "summaries take most of the time of a short validation"),
        Choice("trainer.patience", patience, "more epochs would overfit"),
    ]


def _learning_rates(settings: Config, texts: _Texts, explicit: Collection[str]) -> list[Choice]:
    of_decoder = _hidden_size(settings.decoder, "decoder")
    shrunk, reason = min(1.0, TUNED_HIDDEN_SIZE / of_decoder), f"for a decoder with the hidden size {of_decoder}"
    found = [
        Choice("optim.decoder_rate", 3e-4 * shrunk, reason),
        Choice("optim.new_rate", 6e-4 * shrunk, reason),
    ]
    if settings.encoder.model_type == NO_ENCODER:
        return found
    of_encoder = _hidden_size(settings.encoder, "encoder")
    shrunk, reason = min(1.0, TUNED_HIDDEN_SIZE / of_encoder), f"for an encoder with the hidden size {of_encoder}"
    return [Choice("optim.encoder_rate", 1e-4 * shrunk, reason), *found]


def _hidden_size(submodel: SubmodelSettings, role: Literal["encoder", "decoder"]) -> int:
    """Return the hidden size of a submodel. If it cannot be read, which the fit reports itself, it is BERT base's."""
    from warmstart.model.submodel_config import submodel_config

    if submodel.model_type == AUTO_TYPE and not Path(submodel.path).exists():
        hub_reachable()  # without the hub, its client is told to read only the cache
    try:
        config = submodel_config(replace(submodel, weights=Weights.random), role)
    except UserError:
        return BERT_BASE
    return getattr(config, "hidden_size", None) or BERT_BASE


def _train_rows(settings: Config, texts: _Texts) -> int:
    taken = max(settings.data.split_at_least, round(SPLIT_SHARE * texts.rows))
    return max(1, min(texts.rows - texts.splits_off * taken, settings.data.limit_train or texts.rows))


def _steps_in_epoch(settings: Config, texts: _Texts) -> int:
    trainer, batch = settings.trainer, settings.data.batch
    size = _train_rows(settings, texts)
    if batch.max_tokens is not None:
        size = min(size, max(1, int(batch.max_tokens / (1.2 * _mean_tokens(settings, texts)))))
    size = min(size, batch.size or size) * trainer.devices * trainer.nodes * trainer.accumulate
    return math.ceil(_train_rows(settings, texts) / size)


def _mean_tokens(settings: Config, texts: _Texts) -> float:
    """Return the mean source and target tokens of an example."""
    sources = SourceLayout.of(settings.data).estimated_lengths(texts.sources)
    return float(sources.mean() + texts.targets.mean())


def _whole(tokens: float) -> int:
    """Round up to a multiple of eight."""
    return 8 * math.ceil(tokens / 8)


def _value(settings: Any, key: str) -> Any:
    for name in key.split("."):
        settings = getattr(settings, name)
    return settings


def _replaced(settings: Any, names: Sequence[str], value: Any) -> Any:
    first, *rest = names
    return replace(settings, **{first: _replaced(getattr(settings, first), rest, value) if rest else value})
