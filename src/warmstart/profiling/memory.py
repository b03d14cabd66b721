"""Bytes of a fit and of its generation by kind, from shapes alone.

    fit_memory(model, rows=8, source=512, target=128, precision="bf16-mixed")
    generation_memory(model, rows=28, beams=4, source=512, new=142, width=4)

Activations are what autograd keeps of a layer: inputs of its matrices, queries, keys, values and what they read, inputs
of norms and activations, masks of dropout (Korthikanti et al. 2022, arXiv 2205.05198, with this project's attention,
which keeps nothing of queries x keys). `benchmarks/scale.py` holds them against what autograd keeps in a real step.
Frozen matrices keep less than is said here; experts, and mixers that are no attention, are taken for plain layers.
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

from warmstart.model.decoders import cross_attention_modules
from warmstart.model.encoders import encoder_part, states_width
from warmstart.model.loss import CHUNK
from warmstart.profiling.flops import attention_width, layers_of

_GATES = ("gate_proj", "gate_up_proj", "wi_0", "Wi")  # a module of such a name makes the feed-forward part a gated one
_FUSED = ("c_attn", "Wqkv", "qkv_proj", "qkv", "query_key_value", "att_proj")  # one matrix for what three would read


@dataclass(frozen=True)
class Widths:
    """Bytes of a number: in matrices and attention, on the residual way, and of a parameter."""

    matrix: int
    residual: int
    parameter: int

    @classmethod
    def of(cls, precision: str) -> "Widths":
        """Of a Lightning precision: ``mixed`` keeps parameters and residuals in float32."""
        bits = {"16": 2, "bf16": 2, "64": 8}.get(precision.split("-")[0], 4)
        wide = 4 if precision.endswith("mixed") else bits
        return cls(bits, wide, wide)

    @property
    def mixed(self) -> bool:
        return self.matrix != self.residual


def fit_memory(
    model: Any,
    rows: float,
    source: float,
    target: float,
    precision: str,
    *,
    mask_bytes: int = 0,
    ranks: int = 1,
    shards: int = 1,
) -> dict[str, float]:
    """Bytes of a training step on each device, by kind, for a batch of ``rows`` of so many tokens, padding included.

    Together they are an upper bound: activations shrink while gradients grow. ``mask_bytes`` is what dropout keeps of a
    number: 1 on a GPU, nothing on a CPU (cpu/dropout.py) or without dropout. With ``shards`` (fsdp) a device holds a
    share of weights, gradients and moments; a step gathers a layer at a time, a validation all weights.
    """
    widths = Widths.of(precision)
    parameters = dict(model.named_parameters())
    trained = sum(p.numel() for p in parameters.values() if p.requires_grad)
    trains = any(p.requires_grad for p in model.encoder.parameters())
    matrices = {  # whose copies the backward pass needs
        id(weight): weight.numel()
        for name, module in model.named_modules()
        if not isinstance(module, nn.Embedding) and (trains or not name.startswith("encoder."))
        for weight in module.parameters(recurse=False)
        if weight.dim() > 1
    }
    labels = min(rows * target, CHUNK)
    # As the matrix gives them, as float32 probabilities, and rounded; float16's are scaled first (model/loss.py).
    logit = {"16": 10, "bf16": 8, "64": 16}.get(precision.split("-")[0], 8)
    weights = widths.parameter * sum(p.numel() for p in parameters.values())
    return {
        "weights": weights / shards,
        "gathered (fsdp)": float(weights * (shards > 1)),
        "their 16-bit copies": widths.matrix * sum(matrices.values()) * widths.mixed,
        "gradients": widths.parameter * trained / shards,
        "their buckets (ddp)": widths.parameter * trained * (ranks > 1 and shards == 1),
        "AdamW": 2 * widths.parameter * trained / shards,
        "activations": rows * activation_bytes(model, source, target, widths, mask_bytes),
        "logits": float(labels * model.config.decoder.vocab_size * logit),
    }


def activation_bytes(model: Any, source: float, target: float, widths: Widths, mask_bytes: int = 0) -> float:
    """Bytes that one example's forward pass keeps for the backward pass, logits left out."""
    encoder, decoder = encoder_part(model.config.encoder), model.config.decoder
    trains = any(p.requires_grad for p in model.encoder.parameters())
    kept = source * _layers(model.encoder, encoder, widths, mask_bytes) * trains
    kept += target * _layers(model.decoder, decoder, widths, mask_bytes)
    copies = 1 if any(_has(cross, _FUSED) for cross in cross_attention_modules(model.decoder).values()) else 2
    for queries, keys in cross_attention_sizes(model):
        hidden = decoder.hidden_size
        norm_and_masks = (widths.residual + mask_bytes) * hidden
        kept += target * (widths.matrix * (hidden + 2 * queries) + norm_and_masks)
        kept += source * widths.matrix * (2 * keys + copies * states_width(model.config.encoder) * widths.mixed)
    return kept


def _layers(half: nn.Module, config: Any, widths: Widths, mask_bytes: int) -> float:
    """Bytes a token of a half's layers, cross-attention left out, and of its embeddings and last norm."""
    hidden, heads = config.hidden_size, attention_width(config)
    inner = next(
        (size for name in ("intermediate_size", "n_inner", "ffn_dim", "d_ff") if (size := getattr(config, name, None))),
        4 * hidden,
    )
    gated = _has(half, _GATES)
    # Autocast gives each matrix a copy of its input; else those that read the same tensor share it.
    reads_input = ((1 if _has(half, _FUSED) else 3) + (2 if gated else 1)) if widths.mixed else 2
    matrices = reads_input * hidden + 2 * heads + 2 * key_width(config) + (4 if gated else 2) * inner
    composed_norms = 2 if any("RMSNorm" in type(module).__name__ for module in half.modules()) else 1
    norms = widths.residual * 2 * hidden * composed_norms
    masks = mask_bytes * 2 * hidden
    return layers_of(config) * (widths.matrix * matrices + norms + masks) + 2 * widths.residual * hidden


def _has(part: nn.Module, names: tuple[str, ...]) -> bool:
    return any(name.rpartition(".")[2] in names for name, _ in part.named_modules())


def generation_memory(model: Any, rows: float, beams: int, source: float, new: float, width: int) -> dict[str, float]:
    """Bytes of generating ``new`` tokens for each of ``rows`` sources: caches, which grow to this at the end.

    ``width`` is that of ``generation.dtype``. A run's test computes on rounded copies of its float32 weights, which
    stay in memory meanwhile (``computing_in``).
    """
    decoder, parameters = model.config.decoder, sum(p.numel() for p in model.parameters())
    return {
        "weights": float(width * parameters),
        "their float32 originals": float(4 * parameters * (width != 4)),
        "cross-attention cache": rows * source * width * 2 * sum(keys for _, keys in cross_attention_sizes(model)),
        "self-attention cache": rows * beams * new * width * 2 * layers_of(decoder) * key_width(decoder),
    }


def cross_attention_sizes(model: Any) -> list[tuple[int, int]]:
    """Widths of queries and of keys, all heads together, in each layer that reads the source."""
    grafted = getattr(model, "cross_attention", {})
    if len(grafted):
        shapes = [layer.shape for layer in grafted.values()]
        return [(shape.heads * shape.head_width, shape.key_heads * shape.head_width) for shape in shapes]
    width = attention_width(model.config.decoder)
    return [(width, width)] * len(cross_attention_modules(model.decoder))


def key_width(config: Any) -> int:
    """Width of a layer's keys, all heads together: less than the queries' where heads share them."""
    heads, keys = getattr(config, "num_attention_heads", None), getattr(config, "num_key_value_heads", None)
    width = attention_width(config)
    return width * keys // heads if isinstance(heads, int) and isinstance(keys, int) else width
