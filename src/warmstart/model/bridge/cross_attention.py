"""Gated pre-norm cross-attention, added to the output of a decoder layer that has none.

    hidden <- hidden + tanh(gate) * Attention(query=norm(hidden), key=value=source)

Without a gate, the factor is 1. While the gate is zero, the decoder computes what the pretrained language model does
(Flamingo, arXiv 2204.14198). Queries do not attend to each other, so the beams of a source are folded into its target
length: keys and values are computed and stored once per source.

Shapes: B sources, R = B x beams decoder sequences, T target length, S source length, H decoder hidden size, E encoder
hidden size, N query heads, K key heads, D head size.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from warmstart import cpu
from warmstart.model.call_state import CallState, EncodedSource


@dataclass(frozen=True)
class Shape:
    """Sizes, heads and norms of one cross-attention layer, taken from its decoder."""

    hidden_size: int
    source_size: int  # hidden size of the encoder states
    heads: int
    key_heads: int
    head_width: int  # hidden size of a head
    norm: str  # "rms" or "layer"
    norm_epsilon: float
    normed_heads: bool  # queries and keys are normalized per head, as in Qwen3 and Gemma 3
    streams: str = "inner"  # dimension of several residual streams: "first", or "inner" (between T and H)
    active: int = 0  # for "first": the stream that layers read and write


class CrossAttention(GradientCheckpointingLayer):
    """A grafted cross-attention layer, called by a forward hook of the decoder layer ``index``."""

    def __init__(self, shape: Shape, index: int, call: CallState, *, gated: bool, dropout: float, bias: bool):
        super().__init__()
        self.shape, self.index, self.call = shape, index, call
        queries, keys = shape.heads * shape.head_width, shape.key_heads * shape.head_width
        self.norm: nn.Module = (
            nn.LayerNorm(shape.hidden_size, eps=shape.norm_epsilon)
            if shape.norm == "layer"
            else nn.RMSNorm(shape.hidden_size, eps=shape.norm_epsilon)
        )
        self.q_proj = nn.Linear(shape.hidden_size, queries, bias=bias)
        self.k_proj = nn.Linear(shape.source_size, keys, bias=bias)
        self.v_proj = nn.Linear(shape.source_size, keys, bias=bias)
        self.o_proj = nn.Linear(queries, shape.hidden_size, bias=bias)
        if shape.normed_heads:
            self.q_norm = nn.RMSNorm(shape.head_width, eps=shape.norm_epsilon)
            self.k_norm = nn.RMSNorm(shape.head_width, eps=shape.norm_epsilon)
        self.dropout = nn.Dropout(dropout)
        # Not a scalar: FSDP2 shards parameters along their first dimension.
        self.gate = nn.Parameter(torch.zeros(1)) if gated else None

    def after_layer(self, layer: nn.Module, args: Any, output: Any) -> Any:
        """Add cross-attention to the output of the decoder layer; a forward hook.

        Args:
            layer: The decoder layer.
            args: Its inputs, unused.
            output: Its output: hidden states (R, T, H), or a tuple or list that starts with them.

        Returns:
            The changed output, or None without a source.

        Raises:
            TypeError: The output contains no hidden states in a known form.
        """
        source = self.call.source
        if source is None:
            return None
        if isinstance(output, Tensor):
            return self._attended(output, source)
        if isinstance(output, (tuple, list)):
            changed = [self._attended(output[0], source), *output[1:]]
            return type(output)(*changed) if hasattr(output, "_fields") else type(output)(changed)
        raise TypeError(
            f"Cross-attention cannot be grafted onto {type(layer).__name__}: it returns {type(output).__name__} "
            "instead of hidden states."
        )

    def _attended(self, hidden: Tensor, source: EncodedSource) -> Tensor:
        if hidden.dim() == 3 and hidden.shape[-1] == self.shape.hidden_size:
            return hidden + self._added(hidden, source)
        if hidden.dim() == 3:  # concatenated streams: (R, T, streams x H)
            return self._attended(hidden.unflatten(-1, (-1, self.shape.hidden_size)), source).flatten(2)
        if hidden.dim() == 4 and self.shape.streams == "inner":  # hyper-connections: (R, T, streams, H)
            return hidden + self._added(hidden.mean(dim=2), source)[:, :, None]
        if hidden.dim() == 4 and self.shape.streams == "first":  # alternating updates: (streams, R, T, H), one active
            added = self._added(hidden[self.shape.active], source)
            active = torch.arange(len(hidden), device=hidden.device) == self.shape.active
            return hidden + active[:, None, None, None] * added
        raise TypeError(
            f"Cross-attention cannot be grafted after decoder layer {self.index}: its hidden states have "
            f"{hidden.dim()} dimensions instead of 3."
        )

    def _added(self, hidden_RTH: Tensor, source: EncodedSource) -> Tensor:
        # Plain tensors, not the dataclass: reentrant checkpointing finds gradients only in tensor arguments.
        added: Tensor = self(hidden_RTH, source.states_BSE, source.mask_BS, source.kept)
        return added

    def forward(
        self,
        hidden_RTH: Tensor,
        states_BSE: Tensor,
        mask_BS: Tensor | None = None,
        kept: dict[int, tuple[Tensor, Tensor]] | None = None,
    ) -> Tensor:
        """Compute the gated attention output (R, T, H) that is added to the hidden states.

        Args:
            hidden_RTH: Hidden states (R, T, H).
            states_BSE: Encoder states (B, S, E).
            mask_BS: Mask (B, S), 0 at padding; None reads all positions.
            kept: Keys and values by layer index, filled at the first call and reused later; None in training.
        """
        if kept is None or self.index not in kept:
            keys_BKSD, values_BKSD = self.keys_and_values(states_BSE)
            if kept is not None:
                # Contiguous, because every step reads them, and bmm is slow on transposed views on a CPU.
                keys_BKSD, values_BKSD = keys_BKSD.contiguous(), values_BKSD.contiguous()
                kept[self.index] = keys_BKSD, values_BKSD
        else:
            keys_BKSD, values_BKSD = kept[self.index]
        sources = keys_BKSD.shape[0]
        sequences, length, _ = hidden_RTH.shape
        queries = self.q_proj(self.norm(hidden_RTH)).view(sources, -1, self.shape.heads, self.shape.head_width)
        if self.shape.normed_heads:
            queries = self.q_norm(queries)
        mask = None if mask_BS is None else (mask_BS != 0)[:, None, None, :]
        queries_BNTD = queries.transpose(1, 2)
        attended = cpu.attend(queries_BNTD, keys_BKSD, values_BKSD, mask)
        if attended is None:
            attended = F.scaled_dot_product_attention(
                queries_BNTD, keys_BKSD, values_BKSD, attn_mask=mask, enable_gqa=self.shape.key_heads > 1
            )
        attended = self.o_proj(attended.transpose(1, 2).reshape(sequences, length, -1))
        attended = self.dropout(attended)
        added: Tensor = (attended if self.gate is None else attended * self.gate.tanh()).to(hidden_RTH.dtype)
        return added

    def keys_and_values(self, states_BSE: Tensor) -> tuple[Tensor, Tensor]:
        """Compute keys and values (B, K, S, D) of encoder states (B, S, E)."""
        sources, length, _ = states_BSE.shape
        shape = (sources, length, self.shape.key_heads, self.shape.head_width)
        keys, values = self.k_proj(states_BSE).view(shape), self.v_proj(states_BSE).view(shape)
        if self.shape.normed_heads:
            keys = self.k_norm(keys)
        return keys.transpose(1, 2), values.transpose(1, 2)
