"""Predict what a run costs, before any weights are downloaded: parameters, memory by kind, FLOPs and steps.

    cost = predict(settings, pair_without_values(settings))

Parameters are counted on a model whose tensors have shapes but no data. FLOPs are computed as in
``warmstart.profiling.flops``, for the lengths of a sample of the training texts. Without tokenizers, the number of
tokens is estimated from the number of words. ``warmstart.profiling.devices`` predicts the time.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from warmstart.config.data import DataKind, DataSettings
from warmstart.config.schema import Config, Device
from warmstart.config.training import NewOptimizer
from warmstart.data.sources.base import SPLITS
from warmstart.data.sources.load import load_source
from warmstart.data.tokenization.pair import TokenizerPair
from warmstart.data.tokenization.source_layout import SourceLayout
from warmstart.model.bridge.tying import shared_across_halves
from warmstart.model.modeling import EncoderDecoderModel
from warmstart.model.parameters import parameter_counts
from warmstart.profiling.devices import devices_of, precision_on
from warmstart.profiling.flops import training_flops
from warmstart.profiling.memory import fit_memory, generation_memory

TOKENS_PER_WORD = 1.3
SAMPLED_TEXTS = 2000
TOKENIZED_TEXTS = 500  # which takes a second or two


@dataclass(frozen=True)
class Cost:
    """The result of ``predict``: memory in bytes on each device, and mean lengths in tokens."""

    parameters: dict[str, int]
    memory: dict[str, float]
    precision: str
    generation_memory: dict[str, float]
    generated_examples: int
    examples: int
    source_tokens: float
    target_tokens: float
    label_lengths: list[float]
    """Target tokens of a sample of the training examples."""
    examples_per_step: int
    flops_per_step: float
    steps: int

    @property
    def flops(self) -> float:
        """FLOPs of all training steps."""
        return self.steps * self.flops_per_step


class DataSizes(NamedTuple):
    """The sizes of a data set."""

    examples: int
    """Number of training examples."""
    sources: np.ndarray
    """Source tokens of a sample of the training examples, (sampled examples,), after truncation."""
    targets: np.ndarray
    """Target tokens, likewise."""
    split_sizes: dict[str, int]
    """Examples of each split; empty for a data set that is not read."""


def predict(settings: Config, model: EncoderDecoderModel, tokenizers: TokenizerPair | None = None) -> Cost:
    """Predict the cost of ``task=fit``.

    Args:
        settings: the whole config.
        model: the model of these settings, on any device (``meta`` needs no memory).
        tokenizers: those of the pair, to count tokens with; without them, their number is estimated from the words.

    Returns:
        The cost, with the memory on the first device of ``devices_of``.

    Raises:
        UserError: the user's own data cannot be read.
    """
    examples, sources, targets, split_sizes = texts_of(settings.data, tokenizers)
    source, target, window = float(sources.mean()), float(targets.mean()), settings.data.max_source_length
    trainer, batch = settings.trainer, settings.data.batch
    ranks = trainer.devices * trainer.nodes
    batch_size = examples if batch.max_tokens is None else int(batch.max_tokens / (source + target))
    batch_size = max(1, min(batch_size, batch.size or batch_size, math.ceil(examples / ranks)))
    steps = math.ceil(math.ceil(examples / batch_size / ranks) / trainer.accumulate) * trainer.max_epochs
    per_step = min(batch_size * ranks * trainer.accumulate, examples)
    shards = ranks if trainer.strategy == "fsdp" else 1
    parameters = dict(model.named_parameters(remove_duplicate=False))
    device = devices_of(settings)[0]
    precision = precision_on(device, settings)
    mask_bytes = int(settings.bridge.dropout != 0 and device is not Device.cpu)
    scored = split_sizes.get("test" if settings.evaluation.test else "validation", math.inf)
    generated_examples = max(1, int(min(settings.data.evaluation_max_tokens / (source + target), scored)))
    return Cost(
        parameters=parameter_counts(model)
        | {"shared": sum(parameters[name].numel() for name in shared_across_halves(model))},
        memory=fit_memory(
            *(model, batch_size, source, target, precision),
            mask_bytes=mask_bytes,
            ranks=ranks,
            shards=shards,
            averages=trainer.ema_decay is not None,
            muon=settings.optim.new_optimizer is NewOptimizer.muon,
        ),
        precision=precision,
        generation_memory=generation_memory(
            model,
            batch_size=generated_examples,
            beams=settings.generation.num_beams,
            source=source,
            new=settings.generation.max_new_tokens,
            itemsize=getattr(torch, settings.generation.dtype).itemsize,
        ),
        generated_examples=generated_examples,
        examples=examples,
        source_tokens=source,
        target_tokens=target,
        label_lengths=targets.tolist(),
        examples_per_step=per_step,
        flops_per_step=per_step * float(np.mean(training_flops(model, sources, targets, window))),
        steps=min(steps, trainer.max_steps) if trainer.max_steps > 0 else steps,
    )


def texts_of(data: DataSettings, tokenizers: TokenizerPair | None = None) -> DataSizes:
    """Count the examples of a data set, and the tokens of a sample of its training examples.

    Args:
        data: the ``data`` config.
        tokenizers: those to count tokens with. A data set whose size is published is not read for it.

    Raises:
        UserError: the user's own data cannot be read.
    """
    layout = SourceLayout.of(data)
    if data.kind in (DataKind.hub, DataKind.cnn_dailymail) and data.size.examples is not None:
        examples = data.size.examples
        known = (data.size.document_words, data.size.summary_words)
        # Where no mean length was published, every text counts as the longest possible one.
        longest = [(limit - 2) / TOKENS_PER_WORD for limit in (layout.longest, data.max_target_length)]
        words = np.array([[one if given is None else given for given, one in zip(known, longest, strict=True)]])
        split_sizes = {}
    else:
        loaded = load_source(data)
        split_sizes = {name: len(loaded.split(name)) for name in SPLITS}
        split, examples = loaded.split("train"), split_sizes["train"]
        sampled = SAMPLED_TEXTS if tokenizers is None else TOKENIZED_TEXTS
        some = [split[i] for i in range(0, examples, math.ceil(examples / sampled))]
        if tokenizers is not None:
            rows = layout.encode(tokenizers, [example.document for example in some])
            labels = tokenizers.encode_labels(some, rows, data.max_target_length)
            source, target = (np.array([float(len(row)) for row in side]) for side in (rows, labels))
            return DataSizes(examples, source, target, split_sizes)
        words = np.array([[len(text.split()) for text in (e.document, e.summary)] for e in some], dtype=np.float64)
    source, target = (TOKENS_PER_WORD * words + 2).T
    return DataSizes(
        min(examples, data.limit_train or examples),
        layout.estimated_lengths(source),
        np.minimum(target, data.max_target_length),
        split_sizes,
    )
