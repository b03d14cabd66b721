"""What a run would cost, before anything is downloaded: parameters, memory, FLOPs, steps and hours.

    cost = predict(settings, pair_without_values(settings))
    hours(settings, cost)

Parameters are counted, on a model that holds no values; FLOPs are what its matrices do with texts of the mean length.
Activations and hours are rough.
"""

import math
from dataclasses import dataclass

import torch

from warmstart.app.schema import Config
from warmstart.data.settings import DataKind, DataSettings
from warmstart.data.sources import load_source
from warmstart.model.decoders import cross_attention_modules
from warmstart.model.encoders import encoder_part
from warmstart.model.flops import layers_of, training_flops
from warmstart.model.halves import parameter_counts
from warmstart.model.loss import CHUNK
from warmstart.model.modeling import EncoderDecoderModel
from warmstart.model.sharing import shared_across_halves
from warmstart.training.matrix_peak import matrix_peak
from warmstart.training.trainer import resolve_precision

CNN_DAILYMAIL = (287_113, 781, 56)  # training pairs, mean words of article and summary (See et al. 2017, 1704.04368)
TOKENS_PER_WORD = 1.3
SAMPLED_TEXTS = 2000
H100 = "one H100 at 40 % of 989 TFLOP/s (bf16)"  # NVIDIA's dense peak; Llama 3 reached 38 to 43 % (2407.21783)
H100_RATE = 0.4 * 989e12
CPU_SHARE = 0.4  # of the rate of a large product: what the demo's fit reached (docs/decisions.md)


@dataclass(frozen=True)
class Cost:
    """What :func:`predict` found; memory in bytes of each device."""

    parameters: dict[str, int]
    memory: dict[str, float]
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

    Raises:
        UserError: the user's own data cannot be read.
    """
    examples, source, target = texts_of(settings.data)
    trainer, batch = settings.trainer, settings.data.batch
    ranks = trainer.devices * trainer.nodes
    rows = examples if batch.max_tokens is None else int(batch.max_tokens / (source + target))
    rows = max(1, min(rows, batch.size or rows, math.ceil(examples / ranks)))
    steps = math.ceil(math.ceil(examples / rows / ranks) / trainer.accumulate) * trainer.max_epochs
    per_step = min(rows * ranks * trainer.accumulate, examples)
    counts = parameter_counts(model)
    width = {"16-true": 2, "bf16-true": 2, "64-true": 8}.get(trainer.precision, 4)  # mixed: the weights are fp32
    parameters = dict(model.named_parameters(remove_duplicate=False))
    return Cost(
        parameters=counts | {"shared": sum(parameters[name].numel() for name in shared_across_halves(model))},
        memory={
            "weights": width * counts["total"],
            "gradients": width * counts["trainable"],
            "AdamW": 2 * width * counts["trainable"],
            "activations": rows * activation_bytes(model, source, target, _activation_width(settings)),
        },
        examples=examples,
        source_tokens=source,
        target_tokens=target,
        examples_per_step=per_step,
        flops_per_step=per_step * training_flops(model, source, target),
        steps=min(steps, trainer.max_steps) if trainer.max_steps > 0 else steps,
    )


def texts_of(data: DataSettings) -> tuple[int, float, float]:
    """Training examples, and their mean source and target tokens as far as the settings keep them."""
    words: list[float]
    if data.kind is DataKind.cnn_dailymail:
        examples, *words = CNN_DAILYMAIL
    else:
        split = load_source(data).split("train")
        some = [split[i] for i in range(0, len(split), math.ceil(len(split) / SAMPLED_TEXTS))]
        examples = len(split)
        words = [sum(len(e[place].split()) for e in some) / len(some) for place in (1, 2)]
    source, target = (TOKENS_PER_WORD * count + 2 for count in words)
    return (
        min(examples, data.limit_train or examples),
        min(source, data.max_source_length),
        min(target, data.max_target_length),
    )


def activation_bytes(model: EncoderDecoderModel, source: float, target: float, width: int) -> float:
    """Bytes that one example's forward pass keeps for the backward pass, roughly.

    In 16 bits a layer keeps 34 bytes for each token and channel, of them 11 for attention and 2 for a norm, its scores
    not counted (Korthikanti et al. 2022, arXiv 2205.05198, equation 2), so cross-attention 13 more and the source's
    keys and values 4. Logits are kept in fp32 twice, for at most CHUNK label positions at one time.
    """
    encoder, decoder = encoder_part(model.config.encoder), model.config.decoder
    trains = any(p.requires_grad for p in model.encoder.parameters())
    read = len(cross_attention_modules(model.decoder)) or len(getattr(model, "cross_attention", ()))
    halves = 34 * layers_of(encoder) * encoder.hidden_size * source * trains
    halves += decoder.hidden_size * (34 * layers_of(decoder) * target + read * (13 * target + 4 * source))
    return halves * width / 2 + 8 * min(target, CHUNK) * decoder.vocab_size


def hours(settings: Config, cost: Cost) -> dict[str, float]:
    """Hours of all training steps by device; a CPU's rate is measured now, on one product of matrices."""
    trainer, rates = settings.trainer, {}
    if trainer.accelerator != "cpu":
        rates[H100] = H100_RATE
    if trainer.accelerator in ("cpu", "auto"):
        peak = matrix_peak(torch.device("cpu"), resolve_precision(trainer.precision, "cpu")).flops_per_second
        rates[f"this CPU at {CPU_SHARE:.0%} of {peak / 1e9:.0f} GFLOP/s (measured)"] = CPU_SHARE * peak
    ranks = trainer.devices * trainer.nodes
    return {device: cost.flops / ranks / rate / 3600 for device, rate in rates.items()}


def _activation_width(settings: Config) -> int:
    precision, accelerator = settings.trainer.precision, settings.trainer.accelerator
    if precision == "auto" and accelerator in ("gpu", "cuda"):  # checked here, run elsewhere
        return 2
    return 2 if "16" in resolve_precision(precision, accelerator) else 4
