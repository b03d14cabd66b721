"""Predict the memory of a fit and of generation in bytes, by kind, from shapes only.

    fit_memory(model, batch_size=8, source=512, target=128, precision="bf16-mixed")
    generation_memory(model, batch_size=28, beams=4, source=512, new=142, itemsize=4)

Activations are what autograd saves: inputs of matrices, of norms and of activation functions; queries, keys, values and
attention outputs; dropout masks (Korthikanti et al. 2022, arXiv 2205.05198). Attention scores are not saved.
``benchmarks/scale.py`` compares the prediction with what autograd saves in a real step. For frozen matrices autograd
saves less than predicted. Experts, and layers that mix tokens without attention, are treated as ordinary layers.
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

from warmstart.config.model import NO_ENCODER
from warmstart.model.decoders import cross_attention_modules
from warmstart.model.encoders import encoder_part, states_width
from warmstart.model.loss import CHUNK
from warmstart.model.parameters import hidden_matrices
from warmstart.profiling.flops import attention_width, layers_of

_GATES = ("gate_proj", "gate_up_proj", "wi_0", "Wi")  # names of modules in gated feed-forward layers
_FUSED = ("c_attn", "Wqkv", "qkv_proj", "qkv", "query_key_value", "att_proj")  # one matrix for queries, keys, values


@dataclass(frozen=True)
class ItemSizes:
    """Bytes of one number in each part of the computation."""

    matrix: int
    """Bytes in matrix products and attention."""
    residual: int
    """Bytes in the residual stream."""
    parameter: int
    """Bytes in parameters, gradients and optimizer state."""

    @classmethod
    def of(cls, precision: str) -> "ItemSizes":
        """Return the sizes in a Lightning precision; ``mixed`` keeps parameters and residuals in float32."""
        bits = {"16": 2, "bf16": 2, "64": 8}.get(precision.split("-")[0], 4)
        wide = 4 if precision.endswith("mixed") else bits
        return cls(bits, wide, wide)

    @property
    def mixed(self) -> bool:
        """Whether matrix products need 16-bit copies of their inputs and weights."""
        return self.matrix != self.residual


def fit_memory(
    model: Any,
    batch_size: float,
    source: float,
    target: float,
    precision: str,
    *,
    mask_bytes: int = 0,
    ranks: int = 1,
    shards: int = 1,
    averages: bool = False,
    muon: bool = False,
) -> dict[str, float]:
    """Predict the memory of a training step on each device.

    Args:
        model: an ``EncoderDecoderModel``, on any device.
        batch_size: examples of a batch on each device.
        source: source tokens of an example, including padding.
        target: target tokens of an example, including padding.
        precision: a Lightning precision.
        mask_bytes: bytes of an element of a dropout mask: 1 on a GPU, 0 on a CPU (cpu/dropout.py) or without dropout.
        ranks: number of devices.
        shards: number of devices that weights, gradients and optimizer state are sharded over (fsdp).
        averages: whether there is a moving average of the weights that train (``trainer.ema_decay``).
        muon: whether Muon optimizes new matrices; it keeps one number for each of theirs, and AdamW two.

    Returns:
        Bytes by kind. The sum is an upper bound: activations are freed while gradients are allocated, and under fsdp
        only a validation gathers all weights.
    """
    sizes = ItemSizes.of(precision)
    parameters = dict(model.named_parameters())
    trained = sum(p.numel() for p in parameters.values() if p.requires_grad)
    trains = any(p.requires_grad for p in model.encoder.parameters())
    matrices = {  # those of which the backward pass needs 16-bit copies
        id(weight): weight.numel()
        for name, module in model.named_modules()
        if not isinstance(module, nn.Embedding) and (trains or not name.startswith("encoder."))
        for weight in module.parameters(recurse=False)
        if weight.dim() > 1
    }
    labels = min(batch_size * target, CHUNK)
    # The LM head's output, float32 probabilities and rounded gradients; float16 has a scaled copy too (model/loss.py).
    logit = {"16": 10, "bf16": 8, "64": 16}.get(precision.split("-")[0], 8)
    weights = sizes.parameter * sum(p.numel() for p in parameters.values())
    return {
        "weights": weights / shards,
        "gathered (fsdp)": float(weights * (shards > 1)),
        "their 16-bit copies": sizes.matrix * sum(matrices.values()) * sizes.mixed,
        "gradients": sizes.parameter * trained / shards,
        "their buckets (ddp)": sizes.parameter * trained * (ranks > 1 and shards == 1),
        "optimizer": sizes.parameter * (2 * trained - (_of_muon(model) if muon else 0)) / shards,
        "averages": sizes.parameter * trained * averages,
        "activations": batch_size * activation_bytes(model, source, target, sizes, mask_bytes),
        "logits": float(labels * model.config.decoder.vocab_size * logit),
    }


def _of_muon(model: Any) -> int:
    names = hidden_matrices(model) & model.new_parameter_names()
    return sum(p.numel() for name, p in model.named_parameters() if name in names and p.requires_grad)


def activation_bytes(model: Any, source: float, target: float, sizes: ItemSizes, mask_bytes: int = 0) -> float:
    """Return the bytes that the forward pass of one example saves for the backward pass, without logits.

    Args:
        model: an ``EncoderDecoderModel``.
        source: source tokens.
        target: target tokens.
        sizes: bytes of a number.
        mask_bytes: bytes of an element of a dropout mask.
    """
    encoder, decoder = encoder_part(model.config.encoder), model.config.decoder
    if encoder.model_type == NO_ENCODER:
        return (source + target) * _layers(model.decoder, decoder, sizes, mask_bytes)
    trains = any(p.requires_grad for p in model.encoder.parameters())
    kept: float = source * _layers(model.encoder, encoder, sizes, mask_bytes) * trains
    kept += target * _layers(model.decoder, decoder, sizes, mask_bytes)
    copies = 1 if any(_has(cross, _FUSED) for cross in cross_attention_modules(model.decoder).values()) else 2
    for queries, keys in cross_attention_sizes(model):
        hidden = decoder.hidden_size
        norm_and_masks = (sizes.residual + mask_bytes) * hidden
        kept += target * (sizes.matrix * (hidden + 2 * queries) + norm_and_masks)
        kept += source * sizes.matrix * (2 * keys + copies * states_width(model.config.encoder) * sizes.mixed)
    return kept


def _layers(submodel: nn.Module, config: Any, sizes: ItemSizes, mask_bytes: int) -> float:
    """Return the bytes per token that all layers, the embeddings and the last norm save, without cross-attention."""
    hidden, heads = int(config.hidden_size), attention_width(config)
    inner: int = next(
        (size for name in ("intermediate_size", "n_inner", "ffn_dim", "d_ff") if (size := getattr(config, name, None))),
        4 * hidden,
    )
    gated = _has(submodel, _GATES)
    # Autocast copies the input of each matrix. Without autocast, matrices with the same input share it.
    reads_input = ((1 if _has(submodel, _FUSED) else 3) + (2 if gated else 1)) if sizes.mixed else 2
    matrices = reads_input * hidden + 2 * heads + 2 * key_width(config) + (4 if gated else 2) * inner
    composed_norms = 2 if any("RMSNorm" in type(module).__name__ for module in submodel.modules()) else 1
    norms = sizes.residual * 2 * hidden * composed_norms
    masks = mask_bytes * 2 * hidden
    return layers_of(config) * (sizes.matrix * matrices + norms + masks) + 2 * sizes.residual * hidden


def _has(module: nn.Module, names: tuple[str, ...]) -> bool:
    return any(name.rpartition(".")[2] in names for name, _ in module.named_modules())


def generation_memory(
    model: Any, batch_size: float, beams: int, source: float, new: float, itemsize: int
) -> dict[str, float]:
    """Predict the memory at the end of generation, when the caches are largest.

    Args:
        model: an ``EncoderDecoderModel``, on any device.
        batch_size: number of sources.
        beams: beams of each source.
        source: tokens of a source.
        new: generated tokens of a beam.
        itemsize: bytes of a number in ``generation.dtype``. If that is not float32, the test after a fit uses copies of
            the weights in that dtype, and the float32 weights stay in memory (``computing_in``).

    Returns:
        Bytes by kind.
    """
    decoder, parameters = model.config.decoder, sum(p.numel() for p in model.parameters())
    cross_keys = sum(keys for _, keys in cross_attention_sizes(model))
    if model.config.encoder.model_type == NO_ENCODER:
        new += source  # each beam has the keys and values of the document
    return {
        "weights": float(itemsize * parameters),
        "their float32 originals": float(4 * parameters * (itemsize != 4)),
        "cross-attention cache": batch_size * source * itemsize * 2 * cross_keys,
        "self-attention cache": batch_size * beams * new * itemsize * 2 * layers_of(decoder) * key_width(decoder),
    }


def cross_attention_sizes(model: Any) -> list[tuple[int, int]]:
    """Return the total size of all query heads and of all key heads, for each layer with cross-attention."""
    grafted = getattr(model, "cross_attention", {})
    if len(grafted):
        shapes = [layer.shape for layer in grafted.values()]
        return [(shape.heads * shape.head_width, shape.key_heads * shape.head_width) for shape in shapes]
    width = attention_width(model.config.decoder)
    return [(width, width)] * len(cross_attention_modules(model.decoder))


def key_width(config: Any) -> int:
    """Return the total size of a layer's key heads; with grouped-query attention it is smaller than the queries'."""
    heads, keys = getattr(config, "num_attention_heads", None), getattr(config, "num_key_value_heads", None)
    width = attention_width(config)
    return width * keys // heads if isinstance(heads, int) and isinstance(keys, int) else width
