"""What a run would cost, before anything is downloaded: parameters, memory, FLOPs, steps and hours.

    cost = predict(settings, pair_without_values(settings))
    hours(settings, cost)

Parameters are counted, on a model that holds no values; FLOPs are what its matrices do with texts of the mean length.
Activations and hours are rough.
"""

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from warmstart.app.schema import Config
from warmstart.data.settings import DataKind, DataSettings
from warmstart.data.sources import load_source
from warmstart.model.decoders import cross_attention_modules
from warmstart.model.encoders import encoder_part
from warmstart.model.halves import parameter_counts
from warmstart.model.loss import CHUNK
from warmstart.model.modeling import EncoderDecoderModel
from warmstart.model.sharing import shared_across_halves
from warmstart.training.trainer import resolve_precision

CNN_DAILYMAIL = (287_113, 781, 56)  # training pairs, mean words of article and summary (See et al. 2017, 1704.04368)
TOKENS_PER_WORD = 1.3
SAMPLED_TEXTS = 2000
H100 = "one H100 at 40 % of 989 TFLOP/s (bf16)"  # NVIDIA's dense peak; Llama 3 reached 38 to 43 % (2407.21783)
H100_RATE = 0.4 * 989e12
CPU_SHARE = 0.4  # of the rate of a large product: what the demo's fit reached (docs/decisions.md)
_READ_SOURCE = ("key", "value", "k_proj", "v_proj", "c_attn")  # of cross-attention; its other matrices see the target


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
    shards = ranks if trainer.strategy == "fsdp" else 1
    width = {"16-true": 2, "bf16-true": 2, "64-true": 8}.get(trainer.precision, 4)  # mixed: the weights are fp32
    parameters = dict(model.named_parameters(remove_duplicate=False))
    return Cost(
        parameters=counts | {"shared": sum(parameters[name].numel() for name in shared_across_halves(model))},
        memory={
            "weights": width * counts["total"] / shards,
            "gradients": width * counts["trainable"] / shards,
            "AdamW": 2 * width * counts["trainable"] / shards,
            # At most: a step gathers a layer at a time, a validation all.
            **({"gathered": float(width * counts["total"])} if shards > 1 else {}),
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


def training_flops(model: EncoderDecoderModel, source: float, target: float) -> float:
    """FLOPs of forward and backward for one example of so many tokens.

    2 for each weight of a matrix and token that meets it in the forward pass, 2 for the weight's gradient, 2 for the
    token's: 6 N D of Kaplan et al. 2020 (arXiv 2001.08361), less what freezing saves. Embeddings are looked up and cost
    nothing. Attention adds 4 x queries x keys x width in each layer, and twice that backward. Heads that attend in
    another way (DeBERTa's, Mamba's) and experts that stay idle are not told apart.
    """
    encoder_trains = any(p.requires_grad for p in model.encoder.parameters())
    reads_source = {f"decoder.{name}." for name in cross_attention_modules(model.decoder)} | {"cross_attention."}
    flops = 0.0
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, nn.Embedding):
            continue
        within_encoder = name.startswith("encoder.")
        kind = name.rpartition(".")[2]
        of_source = name == "enc_to_dec_proj" or (kind in _READ_SOURCE and name.startswith(tuple(reads_source)))
        tokens = source if within_encoder or of_source else target
        into_inputs = encoder_trains if within_encoder or of_source else True
        for weight in module.parameters(recurse=False):
            if weight.dim() > 1:
                flops += 2 * weight.numel() * tokens * (1 + weight.requires_grad + into_inputs)
    encoder, decoder = encoder_part(model.config.encoder), model.config.decoder
    window = getattr(encoder, "attention_window", source)  # Longformer's, by layer
    span = min(source, sum(window) / len(window) if isinstance(window, list) else window)
    read = len(cross_attention_modules(model.decoder)) or len(getattr(model, "cross_attention", ()))
    flops += 4 * _layers(encoder) * _attention_width(encoder) * source * span * (3 if encoder_trains else 1)
    return flops + 12 * _attention_width(decoder) * target * (_layers(decoder) * target + read * source)


def activation_bytes(model: EncoderDecoderModel, source: float, target: float, width: int) -> float:
    """Bytes that one example's forward pass keeps for the backward pass, roughly.

    In 16 bits a layer keeps 34 bytes for each token and channel, of them 11 for attention and 2 for a norm, its scores
    not counted (Korthikanti et al. 2022, arXiv 2205.05198, equation 2), so cross-attention 13 more and the source's
    keys and values 4. Logits are kept in fp32 twice, for at most CHUNK label positions at one time.
    """
    encoder, decoder = encoder_part(model.config.encoder), model.config.decoder
    trains = any(p.requires_grad for p in model.encoder.parameters())
    read = len(cross_attention_modules(model.decoder)) or len(getattr(model, "cross_attention", ()))
    halves = 34 * _layers(encoder) * encoder.hidden_size * source * trains
    halves += decoder.hidden_size * (34 * _layers(decoder) * target + read * (13 * target + 4 * source))
    return halves * width / 2 + 8 * min(target, CHUNK) * decoder.vocab_size


def hours(settings: Config, cost: Cost) -> dict[str, float]:
    """Hours of all training steps by device; a CPU's rate is measured now, on one product of matrices."""
    trainer, rates = settings.trainer, {}
    if trainer.accelerator != "cpu":
        rates[H100] = H100_RATE
    if trainer.accelerator in ("cpu", "auto"):
        peak = _cpu_rate(resolve_precision(trainer.precision, "cpu"))
        rates[f"this CPU at {CPU_SHARE:.0%} of {peak / 1e9:.0f} GFLOP/s (measured)"] = CPU_SHARE * peak
    ranks = trainer.devices * trainer.nodes
    return {device: cost.flops / ranks / rate / 3600 for device, rate in rates.items()}


def _cpu_rate(precision: str) -> float:
    """FLOPs a second of the fastest of several products of square matrices."""
    dtype = torch.bfloat16 if precision.startswith("bf16") else torch.float32
    a, size, seconds = torch.ones(1024, 1024, dtype=dtype), 1024, math.inf
    for _ in range(6):
        began = time.perf_counter()
        a @ a
        seconds = min(seconds, time.perf_counter() - began)
    return 2 * size**3 / seconds


def _activation_width(settings: Config) -> int:
    precision, accelerator = settings.trainer.precision, settings.trainer.accelerator
    if precision == "auto" and accelerator in ("gpu", "cuda"):  # checked here, run elsewhere
        return 2
    return 2 if "16" in resolve_precision(precision, accelerator) else 4


def _layers(config: Any) -> int:
    return getattr(config, "num_hidden_layers", None) or 0


def _attention_width(config: Any) -> int:
    heads = getattr(config, "num_attention_heads", None)
    if not isinstance(heads, int):  # none, or a number for each layer
        return config.hidden_size
    return heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
