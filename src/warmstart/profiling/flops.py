"""Model FLOPs of a training step, counted from the model's matrices and a batch's lengths.

    count = count_flops(model)
    count.of(source_lengths, target_lengths)    # forward and backward, one number for each example
    count.total(lengths_seen(batch, count.window))    # summed over a batch, from five sums that stay on the device

For each token, each weight of a matrix counts 2 FLOPs in the forward pass, 2 for the gradient of the weight and 2 for
the gradient of the input. This is the 6 N D of Kaplan et al. 2020 (arXiv 2001.08361), minus what freezing saves.
Attention adds 4 x queries x keys x size of all heads in each layer, and twice that in the backward pass.

As in PaLM's MFU (arXiv 2204.02311, appendix B), padding and recomputation (gradient checkpointing, attention scores in
the backward pass) do not count. Causal and local masks do not reduce the count, but Longformer's windows do. Norms,
activations, embedding lookups, dropout and the optimizer are left out. Idle experts count as active, and DeBERTa's
attention counts like BERT's.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from warmstart.config.model import NO_ENCODER
from warmstart.model.bridge.grafting import decoder_layers
from warmstart.model.decoders import cross_attention_modules
from warmstart.model.encoders import encoder_part
from warmstart.model.loss import IGNORED

# The matrices of cross-attention that process the source; the others process the target.
_READ_SOURCE = ("key", "value", "k_proj", "v_proj", "c_attn")


@dataclass(frozen=True)
class TrainingFlops:
    """Coefficients of a polynomial: the FLOPs of one example with S source and T target tokens."""

    source: float
    """Factor of S: the encoder's matrices, the projection, keys and values of cross-attention."""
    target: float
    """Factor of T: all other matrices, including the LM head."""
    source_pairs: float
    """Factor of S x min(S, window): the encoder's attention."""
    target_pairs: float
    """Factor of T x T: the decoder's self-attention."""
    cross_pairs: float
    """Factor of S x T: cross-attention."""
    window: int
    """Largest number of keys that a query of the encoder attends to."""

    def of(self, source: Any, target: Any) -> Any:
        """Return the FLOPs of examples.

        Args:
            source: source tokens, a number or an array (examples,).
            target: target tokens, likewise.

        Returns:
            A number or an array (examples,).
        """
        return (
            self.source * source
            + self.target * target
            + self.source_pairs * source * np.minimum(source, self.window)
            + self.target_pairs * target * target
            + self.cross_pairs * source * target
        )

    def total(self, seen: Tensor) -> float:
        """Return the FLOPs of the examples in ``seen``, a sum of ``lengths_seen``; synchronizes with the device."""
        factors = (self.source, self.target, self.source_pairs, self.target_pairs, self.cross_pairs)
        return float(sum(factor * count for factor, count in zip(factors, seen.tolist(), strict=True)))


def lengths_seen(batch: dict[str, Tensor], window: int) -> Tensor:
    """Sum the terms of the polynomial over a batch, without synchronizing with the device.

    Args:
        batch: ``attention_mask`` (examples, source positions), or (examples, windows, source positions), whose windows
            are encoded separately; and ``labels`` (examples, target positions).
        window: ``TrainingFlops.window``.

    Returns:
        Sums of S, T, S x min(S, window), T x T and S x T: int64 (5,) on the batch's device.
    """
    windows, target = batch["attention_mask"].sum(-1), (batch["labels"] != IGNORED).sum(1)
    windows = windows.view(len(target), -1)  # tokens of each window of each example
    source, pairs = windows.sum(1), (windows * windows.clamp(max=window)).sum(1)
    return torch.stack([source, target, pairs, target * target, source * target]).sum(1)


def training_flops(model: Any, source: Any, target: Any, window: int | None = None) -> Any:
    """Return the forward and backward FLOPs of examples; see ``TrainingFlops.of``.

    Args:
        model: an ``EncoderDecoderModel``.
        source: source tokens, a number or an array (examples,).
        target: target tokens, likewise.
        window: tokens of a window, if a long source is encoded in windows; None: the source is encoded as a whole.
    """
    count = count_flops(model)
    return replace(count, window=min(count.window, window or count.window)).of(source, target)


def count_flops(model: Any) -> TrainingFlops:
    """Count the FLOPs of an ``EncoderDecoderModel`` with its current frozen parameters, which need fewer FLOPs."""
    readers = (*(f"decoder.{name}." for name in cross_attention_modules(model.decoder)), "cross_attention.")
    matrices = {"source": 0.0, "target": 0.0}
    has_encoder = model.config.encoder.model_type != NO_ENCODER
    output = model.get_output_embeddings()  # without an encoder, all but this module processes the source, too
    trains = {"source": False, "target": False}  # whether the next module has to pass gradients to its input
    for name, module in _as_they_run(model):
        encodes = name.startswith(("encoder.", "enc_to_dec_proj"))
        across = name.startswith(readers) and name.rpartition(".")[2] in _READ_SOURCE
        side = "source" if encodes or across else "target"
        own = list(module.parameters(recurse=False))
        if not isinstance(module, nn.Embedding):
            times = _times_in_a_pass(model, name)
            for weight in own:
                if weight.dim() > 1:
                    count = 2 * weight.numel() * times * (1 + weight.requires_grad + trains[side])
                    matrices[side] += count
                    matrices["source"] += 0 if has_encoder or module is output else count
        learns = any(weight.requires_grad for weight in own)
        if encodes:
            trains["source"] |= learns
        else:
            trains["target"] |= learns or (side == "source" and trains["source"])

    encoder, decoder = encoder_part(model.config.encoder), model.config.decoder
    window = getattr(encoder, "attention_window", None)  # Longformer's, a number or a list with one for each layer
    window = sum(window) // len(window) if isinstance(window, list) else window
    passes_back = any(p.requires_grad for p in model.encoder.parameters())
    source_pairs = 4 * layers_of(encoder) * attention_width(encoder) * (3 if passes_back else 1)
    target_pairs = 4 * attention_width(decoder) * (3 * layers_of(decoder) - 2 * _layers_without_gradient(model))
    cross_pairs = 12 * sum(cross_attention_widths(model))
    if not has_encoder:  # one sequence of S + T tokens: (S + T)² = S² + T² + 2 S T
        source_pairs, cross_pairs = target_pairs, 2 * target_pairs
    return TrainingFlops(
        **matrices,
        source_pairs=source_pairs,
        target_pairs=target_pairs,
        cross_pairs=cross_pairs,
        window=window or 2**31,
    )


def layers_of(config: Any) -> int:
    """Return the number of layers of an encoder's or decoder's config; 0 if the config has no such field."""
    return getattr(config, "num_hidden_layers", None) or 0


def attention_width(config: Any) -> int:
    """Return the total size of all query heads of a layer; 0 if it has no attention (Mamba)."""
    heads = getattr(config, "num_attention_heads", None)
    hidden: int = config.hidden_size
    if not isinstance(heads, int):
        return hidden if heads else 0  # a list holds the number of heads of each layer
    return heads * (getattr(config, "head_dim", None) or hidden // heads)


def cross_attention_widths(model: Any) -> list[int]:
    """Return the total size of all heads of each layer with cross-attention."""
    grafted = getattr(model, "cross_attention", {})
    if len(grafted):
        return [layer.shape.heads * layer.shape.head_width for layer in grafted.values()]
    return [attention_width(model.config.decoder)] * len(cross_attention_modules(model.decoder))


def _as_they_run(model: Any) -> list[tuple[str, nn.Module]]:
    """Return the names and modules in the order in which a forward pass runs them; grafted layers follow theirs."""
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
    """Return how often a forward pass runs a module: ALBERT reuses its layers."""
    config = model.config.decoder if name.startswith("decoder.") else encoder_part(model.config.encoder)
    return config.num_hidden_layers / config.num_hidden_groups if ".albert_layer_groups." in name else 1


def _layers_without_gradient(model: Any) -> int:
    """Return the number of the decoder's first layers without a backward pass.

    If the decoder is frozen, gradients end at the first cross-attention.
    """
    own, across = model.decoder, cross_attention_modules(model.decoder)
    inside = tuple(f"{name}." for name in across)
    if any(p.requires_grad for name, p in own.named_parameters() if not (inside and name.startswith(inside))):
        return 0
    grafted = getattr(model, "cross_attention", {})
    return 1 + min((int(index) for index in grafted), default=0)
