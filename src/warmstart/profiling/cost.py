"""What a run would cost, before anything is downloaded: parameters, memory by kind, FLOPs, steps.

    cost = predict(settings, pair_without_values(settings))

Parameters are counted, on a model that holds no values; FLOPs are those of the training texts' lengths (a sample of
them), as :mod:`warmstart.profiling.flops` counts them; tokens are guessed from words.
Hours: :mod:`warmstart.profiling.devices`.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from warmstart.config.data import DataKind, DataSettings
from warmstart.config.schema import Config, Device
from warmstart.data.sources.load import load_source
from warmstart.model.bridge.tying import shared_across_halves
from warmstart.model.modeling import EncoderDecoderModel
from warmstart.model.parameters import parameter_counts
from warmstart.profiling.devices import devices_of, precision_on
from warmstart.profiling.flops import training_flops
from warmstart.profiling.memory import fit_memory, generation_memory

CNN_DAILYMAIL = (287_113, 781, 56)  # training pairs, mean words of article and summary (See et al. 2017, 1704.04368)
TOKENS_PER_WORD = 1.3
SAMPLED_TEXTS = 2000


@dataclass(frozen=True)
class Cost:
    """What :func:`predict` found; memory in bytes of each device."""

    parameters: dict[str, int]
    memory: dict[str, float]
    precision: str
    generation_memory: dict[str, float]
    generated_rows: int
    examples: int
    source_tokens: float
    target_tokens: float
    examples_per_step: int
    flops_per_step: float
    steps: int

    @property
    def flops(self) -> float:
        """Of all training steps."""
        return self.steps * self.flops_per_step


def predict(settings: Config, model: EncoderDecoderModel) -> Cost:
    """The cost of ``task=fit`` with these settings and their model, on whichever device its tensors are.

    Memory is that of the first device that :func:`devices_of` names.

    Raises:
        UserError: the user's own data cannot be read.
    """
    examples, sources, targets = texts_of(settings.data)
    source, target = float(sources.mean()), float(targets.mean())
    trainer, batch = settings.trainer, settings.data.batch
    ranks = trainer.devices * trainer.nodes
    rows = examples if batch.max_tokens is None else int(batch.max_tokens / (source + target))
    rows = max(1, min(rows, batch.size or rows, math.ceil(examples / ranks)))
    steps = math.ceil(math.ceil(examples / rows / ranks) / trainer.accumulate) * trainer.max_epochs
    per_step = min(rows * ranks * trainer.accumulate, examples)
    shards = ranks if trainer.strategy == "fsdp" else 1
    parameters = dict(model.named_parameters(remove_duplicate=False))
    device = devices_of(settings)[0]
    precision = precision_on(device, settings)
    mask_bytes = int(settings.bridge.dropout != 0 and device is not Device.cpu)
    generated_rows = max(1, int(settings.data.evaluation_max_tokens / (source + target)))
    return Cost(
        parameters=parameter_counts(model)
        | {"shared": sum(parameters[name].numel() for name in shared_across_halves(model))},
        memory=fit_memory(model, rows, source, target, precision, mask_bytes=mask_bytes, ranks=ranks, shards=shards),
        precision=precision,
        generation_memory=generation_memory(
            model,
            rows=generated_rows,
            beams=settings.generation.num_beams,
            source=source,
            new=settings.generation.max_new_tokens,
            width=getattr(torch, settings.generation.dtype).itemsize,
        ),
        generated_rows=generated_rows,
        examples=examples,
        source_tokens=source,
        target_tokens=target,
        examples_per_step=per_step,
        flops_per_step=per_step * float(np.mean(training_flops(model, sources, targets))),
        steps=min(steps, trainer.max_steps) if trainer.max_steps > 0 else steps,
    )


def texts_of(data: DataSettings) -> tuple[int, np.ndarray, np.ndarray]:
    """Training examples, and source and target tokens of some of them as far as the settings keep them."""
    if data.kind is DataKind.cnn_dailymail:
        examples, *means = CNN_DAILYMAIL
        words = np.array([means], dtype=np.float64)
    else:
        split = load_source(data).split("train")
        examples = len(split)
        some = [split[i] for i in range(0, examples, math.ceil(examples / SAMPLED_TEXTS))]
        words = np.array([[len(text.split()) for text in (e.document, e.summary)] for e in some], dtype=np.float64)
    source, target = (TOKENS_PER_WORD * words + 2).T
    return (
        min(examples, data.limit_train or examples),
        np.minimum(source, data.max_source_length),
        np.minimum(target, data.max_target_length),
    )
