"""FLOPs of a training step that the model's own work needs, counted from its matrices and a batch's lengths.

    count = count_flops(model)
    count.of(source_lengths, target_lengths)    # forward and backward, one number for each example
    count.total(lengths_seen(batch, count.window))    # summed over a batch, from five sums that stay on the device

2 for each weight of a matrix and token that meets it in the forward pass, 2 for the weight's gradient, 2 for the
token's: 6 N D of Kaplan et al. 2020 (arXiv 2001.08361), less what freezing saves. Attention adds 4 x queries x keys x
width in each layer, and twice that backward. Padding counts nothing, and neither does what is computed a second time
(gradient checkpointing, attention's scores in the backward pass), as in PaLM's MFU (arXiv 2204.02311, appendix B).
Causal and local masks save nothing, as there; Longformer's windows do. Left out: norms, activations, lookups, dropout
and the optimizer. Experts that stay idle count as if they worked, and of DeBERTa's attention only what BERT's does too.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from warmstart.model.bridge.grafting import decoder_layers
from warmstart.model.decoders import cross_attention_modules
from warmstart.model.encoders import encoder_part
from warmstart.model.loss import IGNORED

_READ_SOURCE = ("key", "value", "k_proj", "v_proj", "c_attn")  # of cross-attention; its other matrices see the target


@dataclass(frozen=True)
class TrainingFlops:
    """FLOPs of one example of S source and T target tokens: a polynomial of both."""

    source: float
    """x S: the encoder's matrices, the projection, keys and values of cross-attention."""
    target: float
    """x T: all other matrices, the output matrix among them."""
    source_pairs: float
    """x S x min(S, window): the encoder's attention."""
    target_pairs: float
    """x T x T: the decoder's self-attention."""
    cross_pairs: float
    """x S x T: cross-attention."""
    window: int
    """Keys that a query of the encoder reads at most."""

    def of(self, source: Any, target: Any) -> Any:
        """For one example (numbers) or several (arrays)."""
        return (
            self.source * source
            + self.target * target
            + self.source_pairs * source * np.minimum(source, self.window)
            + self.target_pairs * target * target
            + self.cross_pairs * source * target
        )

    def total(self, seen: Tensor) -> float:
        """Of all examples that :func:`lengths_seen` summed up; reads the device."""
        factors = (self.source, self.target, self.source_pairs, self.target_pairs, self.cross_pairs)
        return float(sum(factor * count for factor, count in zip(factors, seen.tolist(), strict=True)))


def lengths_seen(batch: dict[str, Tensor], window: int) -> Tensor:
    """Sums over a batch's rows of S, T, S x min(S, window), T x T, S x T: int64 (5,) on the batch's device.

    Exact, and nothing waits for the device.
    """
    source, target = batch["attention_mask"].sum(1), (batch["labels"] != IGNORED).sum(1)
    return torch.stack([source, target, source * source.clamp(max=window), target * target, source * target]).sum(1)


def training_flops(model: Any, source: Any, target: Any) -> Any:
    """FLOPs of forward and backward for examples of so many tokens: numbers or arrays."""
    return count_flops(model).of(source, target)


def count_flops(model: Any) -> TrainingFlops:
    """What an ``EncoderDecoderModel`` does in a training step as it is now: some parameters may be frozen."""
    readers = (*(f"decoder.{name}." for name in cross_attention_modules(model.decoder)), "cross_attention.")
    matrices = {"source": 0.0, "target": 0.0}
    trains = {"source": False, "target": False}  # whether gradients flow back past the module that comes next
    for name, module in _as_they_run(model):
        encodes = name.startswith(("encoder.", "enc_to_dec_proj"))
        across = name.startswith(readers) and name.rpartition(".")[2] in _READ_SOURCE
        side = "source" if encodes or across else "target"
        own = list(module.parameters(recurse=False))
        if not isinstance(module, nn.Embedding):
            times = _times_in_a_pass(model, name)
            for weight in own:
                if weight.dim() > 1:
                    matrices[side] += 2 * weight.numel() * times * (1 + weight.requires_grad + trains[side])
        learns = any(weight.requires_grad for weight in own)
        if encodes:
            trains["source"] |= learns
        else:
            trains["target"] |= learns or (side == "source" and trains["source"])

    encoder, decoder = encoder_part(model.config.encoder), model.config.decoder
    window = getattr(encoder, "attention_window", None)  # Longformer's, by layer
    window = sum(window) // len(window) if isinstance(window, list) else window
    passes_back = any(p.requires_grad for p in model.encoder.parameters())
    return TrainingFlops(
        **matrices,
        source_pairs=4 * layers_of(encoder) * attention_width(encoder) * (3 if passes_back else 1),
        target_pairs=4 * attention_width(decoder) * (3 * layers_of(decoder) - 2 * _layers_without_gradient(model)),
        cross_pairs=12 * sum(cross_attention_widths(model)),
        window=window or 2**31,
    )


def layers_of(config: Any) -> int:
    return getattr(config, "num_hidden_layers", None) or 0


def attention_width(config: Any) -> int:
    """Width of all heads together; 0 where there are none (Mamba)."""
    heads = getattr(config, "num_attention_heads", None)
    if not isinstance(heads, int):
        return config.hidden_size if heads else 0  # a list: a number for each layer
    return heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)


def cross_attention_widths(model: Any) -> list[int]:
    """Width of all heads together in each layer that reads the source."""
    grafted = getattr(model, "cross_attention", {})
    if len(grafted):
        return [layer.shape.heads * layer.shape.head_width for layer in grafted.values()]
    return [attention_width(model.config.decoder)] * len(cross_attention_modules(model.decoder))


def _as_they_run(model: Any) -> list[tuple[str, nn.Module]]:
    """Every module that a pass runs, by name and in that order: a grafted layer stands behind the layer it follows."""
    found = [*model.encoder.named_modules(None, "encoder", remove_duplicate=False)]
    if hasattr(model, "enc_to_dec_proj"):
        found.append(("enc_to_dec_proj", model.enc_to_dec_proj))
    grafted = getattr(model, "cross_attention", {})
    last_of: dict[nn.Module, str] = {}
    if len(grafted):
        layers = decoder_layers(model.decoder)
        last_of = {list(layers[int(index)].modules())[-1]: index for index in grafted}
    for name, module in model.decoder.named_modules(None, "decoder", remove_duplicate=False):
        found.append((name, module))
        if module in last_of:
            index = last_of.pop(module)
            found += grafted[index].named_modules(None, f"cross_attention.{index}", remove_duplicate=False)
    return found


def _times_in_a_pass(model: Any, name: str) -> float:
    """How often a pass runs a module: ALBERT's few layers serve for all."""
    config = model.config.decoder if name.startswith("decoder.") else encoder_part(model.config.encoder)
    return config.num_hidden_layers / config.num_hidden_groups if ".albert_layer_groups." in name else 1


def _layers_without_gradient(model: Any) -> int:
    """The decoder's first layers, where it is frozen: no gradient flows back past what reads the source first."""
    own, across = model.decoder, cross_attention_modules(model.decoder)
    inside = tuple(f"{name}." for name in across)
    if any(p.requires_grad for name, p in own.named_parameters() if not (inside and name.startswith(inside))):
        return 0
    grafted = getattr(model, "cross_attention", {})
    return 1 + min((int(index) for index in grafted), default=0)
