"""Cross-attention for a decoder that has none: pre-norm, behind a gate, added to what a decoder layer gives.

    hidden <- hidden + tanh(gate) * Attention(query=norm(hidden), key=value=source)

With the gate at zero the decoder is the bare language model at step 0 (Flamingo, arXiv 2204.14198). Queries do not see
each other here, so the beams of one source are folded into its target length: keys and values exist once per source.

Shapes: B sources, R = B x beams rows of the decoder, T target length, S source length, H decoder width, E width of the
source's states, N query heads, K key heads, D width of a head.
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
    """Widths and heads of one layer's cross-attention, as its decoder has them."""

    width: int
    source_width: int
    heads: int
    key_heads: int
    head_width: int
    norm: str  # "rms" or "layer"
    norm_epsilon: float
    normed_heads: bool  # queries and keys are normed per head, as in Qwen3 and Gemma 3
    streams: str = "inner"  # where a decoder of several residual streams has them: "first" or "inner"
    active: int = 0  # the stream that layers read and write, where they are first


class CrossAttention(GradientCheckpointingLayer):
    """One grafted layer; ``index`` is the decoder layer that it follows."""

    def __init__(self, shape: Shape, index: int, call: CallState, *, gated: bool, dropout: float, bias: bool):
        super().__init__()
        self.shape, self.index, self.call = shape, index, call
        queries, keys = shape.heads * shape.head_width, shape.key_heads * shape.head_width
        self.norm: nn.Module = (
            nn.LayerNorm(shape.width, eps=shape.norm_epsilon)
            if shape.norm == "layer"
            else nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        )
        self.q_proj = nn.Linear(shape.width, queries, bias=bias)
        self.k_proj = nn.Linear(shape.source_width, keys, bias=bias)
        self.v_proj = nn.Linear(shape.source_width, keys, bias=bias)
        self.o_proj = nn.Linear(queries, shape.width, bias=bias)
        if shape.normed_heads:
            self.q_norm = nn.RMSNorm(shape.head_width, eps=shape.norm_epsilon)
            self.k_norm = nn.RMSNorm(shape.head_width, eps=shape.norm_epsilon)
        self.dropout = nn.Dropout(dropout)
        # One element and not a scalar: FSDP2 shards along the first dimension.
        self.gate = nn.Parameter(torch.zeros(1)) if gated else None

    def after_layer(self, layer: nn.Module, args: Any, output: Any) -> Any:
        """Forward hook of the decoder layer: its hidden states (R, T, H), wherever they stand, read the source."""
        source = self.call.source
        if source is None:
            return None
        if isinstance(output, Tensor):
            return self._read(output, source)
        if isinstance(output, (tuple, list)):
            changed = [self._read(output[0], source), *output[1:]]
            return type(output)(*changed) if hasattr(output, "_fields") else type(output)(changed)
        raise TypeError(f"{type(layer).__name__} returns {type(output).__name__}, which holds no plain hidden states.")

    def _read(self, hidden: Tensor, source: EncodedSource) -> Tensor:
        if hidden.dim() == 3 and hidden.shape[-1] == self.shape.width:
            return hidden + self._added(hidden, source)
        if hidden.dim() == 3:  # side by side: (R, T, streams x H)
            return self._read(hidden.unflatten(-1, (-1, self.shape.width)), source).flatten(2)
        if hidden.dim() == 4 and self.shape.streams == "inner":  # hyper-connections: (R, T, streams, H)
            return hidden + self._added(hidden.mean(dim=2), source)[:, :, None]
        if hidden.dim() == 4 and self.shape.streams == "first":  # alternating updates: (streams, R, T, H), one active
            read = self._added(hidden[self.shape.active], source)
            active = torch.arange(len(hidden), device=hidden.device) == self.shape.active
            return hidden + active[:, None, None, None] * read
        raise TypeError(
            f"The decoder layer before cross-attention {self.index} gives {hidden.dim()} dimensions, not 3."
        )

    def _added(self, hidden_RTH: Tensor, source: EncodedSource) -> Tensor:
        # The states as an argument of their own: reentrant checkpointing looks for gradients in plain tensors only.
        added: Tensor = self(hidden_RTH, source.states_BSE, source.mask_BS, source.kept)
        return added

    def forward(
        self,
        hidden_RTH: Tensor,
        states_BSE: Tensor,
        mask_BS: Tensor | None = None,
        kept: dict[int, tuple[Tensor, Tensor]] | None = None,
    ) -> Tensor:
        """What the source adds to ``hidden`` (R, T, H); the others are the fields of a :class:`Source`."""
        if kept is None or self.index not in kept:
            keys_BKSD, values_BKSD = self._keys_and_values(states_BSE)
            if kept is not None:
                # Every step reads them: bmm took six times as long for them as views of (B, S, K, D) (bf16, a CPU).
                keys_BKSD, values_BKSD = keys_BKSD.contiguous(), values_BKSD.contiguous()
                kept[self.index] = keys_BKSD, values_BKSD
        else:
            keys_BKSD, values_BKSD = kept[self.index]
        sources = keys_BKSD.shape[0]
        rows, length, _ = hidden_RTH.shape
        queries = self.q_proj(self.norm(hidden_RTH)).view(sources, -1, self.shape.heads, self.shape.head_width)
        if self.shape.normed_heads:
            queries = self.q_norm(queries)
        mask = None if mask_BS is None else (mask_BS != 0)[:, None, None, :]
        queries_BNTD = queries.transpose(1, 2)
        read = cpu.attend(queries_BNTD, keys_BKSD, values_BKSD, mask)
        if read is None:
            read = F.scaled_dot_product_attention(
                queries_BNTD, keys_BKSD, values_BKSD, attn_mask=mask, enable_gqa=self.shape.key_heads > 1
            )
        read = self.o_proj(read.transpose(1, 2).reshape(rows, length, -1))
        read = self.dropout(read)
        added: Tensor = (read if self.gate is None else read * self.gate.tanh()).to(hidden_RTH.dtype)
        return added

    def _keys_and_values(self, states_BSE: Tensor) -> tuple[Tensor, Tensor]:
        sources, length, _ = states_BSE.shape
        shape = (sources, length, self.shape.key_heads, self.shape.head_width)
        keys, values = self.k_proj(states_BSE).view(shape), self.v_proj(states_BSE).view(shape)
        if self.shape.normed_heads:
            keys = self.k_norm(keys)
        return keys.transpose(1, 2), values.transpose(1, 2)
