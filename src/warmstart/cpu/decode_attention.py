"""Decode-step attention on a CPU: a few queries to many keys.

    with decode_attention(model.decoder):
        model.generate(...)

torch's fused attention for a CPU is slow for few queries (docs/performance.md). Here the compiled kernel is used if it
is built, with scores in float32. Otherwise attention is two matrix products, with scores in the dtype of the queries.
For more queries, and on other devices, transformers' ``sdpa`` is used.

Shapes: B batch, N heads, G key and value heads, T queries, S keys, D head size.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from warmstart.compat.transformers import attention_of, set_attention
from warmstart.cpu.attention import NAME as LEAN_DROPOUT
from warmstart.cpu.attention import attention_probabilities, can_exchange_sdpa
from warmstart.cpu.indexed_kv_cache import IndexedKV
from warmstart.cpu.kernels import cpu_kernels
from warmstart.shared_change import is_inside, shared_change

NAME = "sdpa_decode_step"
MOST_QUERIES = 16  # in cross-attention, the beams of a source are its queries


def decode_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Compute attention, as a function of transformers' ``AttentionInterface``.

    Args:
        module: The attention module.
        query: (B, N, T, D).
        key: (B, G, S, D).
        value: (B, G, S, D).
        attention_mask: (B, 1, T, S), bool or added to the scores, or None.
        dropout: Dropout probability; decode-step attention needs 0.
        scaling: Factor of the scores. Default: 1 / sqrt(D).
        is_causal: Whether attention without a mask is causal. Default: ``module.is_causal``.
        **kwargs: Further arguments of ``sdpa``.

    Returns:
        (B, T, N, D), and None for the attention weights.
    """
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    served = (
        is_inside(NAME)
        and serves(query, key, attention_mask)
        and not dropout
        and not (causal and attention_mask is None and query.shape[2] > 1)
        and all(kwargs.get(name) is None for name in ("position_bias", "cache", "softcap"))
    )
    if not served:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, is_causal=is_causal, **kwargs
        )
    return attend(query, key, value, attention_mask, scaling).transpose(1, 2).contiguous(), None


def serves(query: Tensor, key: Tensor, mask: Tensor | None) -> bool:
    """Return whether ``attend`` is correct and faster: a CPU, few queries, and one mask for all heads."""
    return (
        # First, because reading a size would make a recorded graph depend on it.
        not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and query.device.type == "cpu"
        and query.shape[2] <= MOST_QUERIES
        and query.dtype == key.dtype
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and (mask is None or (mask.dim() == 4 and mask.shape[1] == 1))
    )


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None = None) -> Tensor:
    """Compute the attention of (B, N, T, D) to (B, G, S, D).

    Args:
        query: (B, N, T, D).
        key: (B, G, S, D).
        value: (B, G, S, D).
        mask: (B, 1, T or 1, S), bool (True is visible) or added to the scores; None: all keys are visible.
        scaling: Factor of the scores. Default: 1 / sqrt(D).

    Returns:
        (B, N, T, D).
    """
    batch, heads, length, size = query.shape
    groups = heads // key.shape[1]
    scale = 1 / math.sqrt(size) if scaling is None else scaling
    if groups > 1:  # query heads that share a key head become further queries of it
        query = query.reshape(batch, key.shape[1], groups * length, size)
        mask = mask if mask is None or mask.shape[2] == 1 else mask.repeat(1, 1, groups, 1)
    kernels, memory, index = cpu_kernels(), (key, value), None
    if isinstance(key, IndexedKV) and isinstance(value, IndexedKV):
        memory, index = (key.memory_PNTD, value.memory_PNTD), key.index_RT
    read = None if kernels is None else kernels.attend(query, *memory, mask, scale, index)
    if read is None:
        read = attention_probabilities(query, key, mask, scale) @ value
    return read.reshape(batch, heads, length, -1)


def is_used_by(config: Any) -> bool:
    """Return whether a model of this config currently uses decode-step attention."""
    return attention_of(config) == NAME


@contextmanager
def decode_attention(decoder: PreTrainedModel) -> Iterator[None]:
    """Replace ``sdpa`` in a decoder on a CPU by this attention within the context; other decoders do not change."""
    chosen = attention_of(decoder.config)
    if chosen not in ("sdpa", LEAN_DROPOUT, NAME) or decoder.device.type != "cpu" or not can_exchange_sdpa(decoder):
        yield
        return
    with shared_change(decoder, NAME, lambda: _exchange(decoder)):
        yield


def _exchange(decoder: PreTrainedModel) -> Callable[[], None]:
    chosen = attention_of(decoder.config)
    set_attention(decoder.config, NAME)

    def undo() -> None:
        set_attention(decoder.config, chosen)

    return undo


AttentionInterface.register(NAME, decode_attention_forward)
AttentionMaskInterface.register(NAME, sdpa_mask)
