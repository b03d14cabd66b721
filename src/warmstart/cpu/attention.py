"""Attention with dropout on a CPU that stores no tensor of size queries x keys for the backward pass.

    use_lean_dropout(model.encoder)   # for each submodel that uses transformers' ``sdpa``

torch's fused attention has no dropout on a CPU. Its fallback computes in float32, stores three tensors of heads x
queries x keys per layer, and draws one random number per element. Here a chunk of the batch is computed at a time, in
the dtype of the queries. The backward pass recomputes the probabilities, and draws the dropout mask again from its
seed, as in FlashAttention (Dao et al. 2022, arXiv 2205.14135). Without dropout, and on other devices, transformers'
``sdpa`` is used.

Shapes: B batch, N heads, G key and value heads, T queries, S keys, D head size.
"""

import functools
import inspect
import math
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from warmstart.compat.torch import safe_softmax, softmax_gradient
from warmstart.compat.transformers import attention_of, can_set_attention, set_attention
from warmstart.cpu.dropout import dropped_share, exchange_dropout, keep_, kept_bits

NAME = "sdpa_lean_dropout"
# Elements of queries x keys in a chunk: 32 MB in bf16. Smaller chunks would fit in a processor cache, but each one
# synchronizes the threads a dozen times, which is slow on a busy machine (docs/performance.md).
CHUNK = 2**24


@torch.compiler.disable  # type: ignore[untyped-decorator]  # the seed is a Python number, which breaks a graph
def lean_dropout_attention(
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
        attention_mask: Broadcasts to (B, N, T, S); bool or added to the scores, or None.
        dropout: Dropout probability.
        scaling: Factor of the scores. Default: 1 / sqrt(D).
        is_causal: Whether attention without a mask is causal. Default: ``module.is_causal``.
        **kwargs: Further arguments of ``sdpa``.

    Returns:
        (B, T, N, D), and None for the attention weights.
    """
    served = (
        dropped_share(dropout) > 0
        and query.device.type == "cpu"
        and all(kwargs.get(name) is None for name in ("position_bias", "cache", "softcap"))
        and not (attention_mask is not None and attention_mask.requires_grad)
    )
    if not served:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, is_causal=is_causal, **kwargs
        )
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    if attention_mask is None and causal and query.shape[2] > 1:
        attention_mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
    if torch.is_autocast_enabled("cpu"):
        query, key, value = (x.to(torch.get_autocast_dtype("cpu")) for x in (query, key, value))
    with torch.autocast("cpu", enabled=False):
        attended = attention_with_dropout(query, key, value, attention_mask, dropout, scaling)
    return attended.transpose(1, 2).contiguous(), None


def attention_with_dropout(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float, scaling: float | None = None
) -> Tensor:
    """Compute attention with dropout of the probabilities. One number of torch's generator seeds the dropout mask.

    Args:
        query: (B, N, T, D).
        key: (B, G, S, D).
        value: (B, G, S, D).
        mask: Broadcasts to (B, N, T, S); bool (True is visible) or added to the scores; None: all keys are visible.
        dropout: Dropout probability.
        scaling: Factor of the scores. Default: 1 / sqrt(D).

    Returns:
        (B, N, T, D).
    """
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    if mask is not None:
        mask = mask.expand(query.shape[0], mask.shape[1] if mask.dim() == 4 else 1, -1, -1)
    seed = int(torch.randint(2**62, ()))
    scale = 1 / math.sqrt(query.shape[-1]) if scaling is None else scaling
    attended: Tensor = _Attention.apply(query, key, value, mask, dropped_share(dropout), scale, seed)
    return attended


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, share: float, scale: float, seed: int
    ) -> Tensor:
        ctx.save_for_backward(query, key, value, mask)
        ctx.chosen = share, scale, seed
        result = query.new_empty(*query.shape[:-1], value.shape[-1])
        for part, kept in _chunks(query, key, share, seed):
            probabilities = attention_probabilities(query[part], key[part], _part(mask, part), scale)
            result[part] = keep_(probabilities, kept) @ value[part]
        return result.mul_(1 / (1 - share))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        query, key, value, mask = ctx.saved_tensors
        share, scale, seed = ctx.chosen
        grad_output = grad_output * (1 / (1 - share))
        grads = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in (query, key, value)]
        grad_query, grad_key, grad_value = grads
        for part, kept in _chunks(query, key, share, seed):
            probabilities = attention_probabilities(query[part], key[part], _part(mask, part), scale)
            grad = keep_(grad_output[part] @ value[part].transpose(-1, -2), kept)
            grad = softmax_gradient(grad, probabilities)
            grad_value[part] = keep_(probabilities, kept).transpose(-1, -2) @ grad_output[part]
            grad_query[part] = grad @ key[part]
            grad_key[part] = grad.transpose(-1, -2) @ query[part]
        return grad_query.mul_(scale), grad_key.mul_(scale), grad_value, None, None, None, None


Chunk = tuple[slice, slice]  # examples and heads


def _chunks(query: Tensor, key: Tensor, share: float, seed: int) -> Iterator[tuple[Chunk, Tensor]]:
    """Yield chunks of examples and heads with the dropout masks of their probabilities, which follow from ``seed``."""
    batch, heads, queries, _ = query.shape
    keys = key.shape[2]
    some_heads = min(heads, max(1, CHUNK // (queries * keys)))
    rows = max(1, CHUNK // (heads * queries * keys)) if some_heads == heads else 1
    generator = torch.Generator().manual_seed(seed)
    for row in range(0, batch, rows):
        for head in range(0, heads, some_heads):
            part = slice(row, min(row + rows, batch)), slice(head, min(head + some_heads, heads))
            shape = [part[0].stop - row, part[1].stop - head, queries, keys]
            yield part, kept_bits(math.prod(shape), share, generator, query.dtype).view(shape)


def _part(mask: Tensor | None, part: Chunk) -> Tensor | None:
    if mask is None:
        return None
    return mask[part[0], part[1] if mask.shape[1] > 1 else slice(None)]


def attention_probabilities(query: Tensor, key: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Compute the softmax over the keys; zeros if no key is visible to a query, as in torch's attention."""
    scores = (query * scale) @ key.transpose(-1, -2)
    if mask is None:
        return torch.softmax(scores, dim=-1)
    if mask.dtype != torch.bool:
        return safe_softmax(scores.add_(mask))
    added = torch.zeros_like(mask, dtype=scores.dtype).masked_fill_(~mask, float("-inf"))
    probabilities = torch.softmax(scores.add_(added), dim=-1)  # faster than masked_fill_ on the scores
    visible = mask.any(dim=-1, keepdim=True)
    return probabilities if visible.all() else probabilities.masked_fill_(~visible, 0)


def use_lean_dropout(submodel: PreTrainedModel) -> bool:
    """Replace a submodel's dropout by ``LeanDropout``, and its attention by this one if it is ``sdpa``, in place.

    ``set_attn_implementation("sdpa")`` restores the attention.

    Returns:
        Whether the attention was replaced. False if another implementation is chosen, if the submodel does not use
        transformers' attention functions, or if its code compares with the name ``sdpa``.
    """
    exchange_dropout(submodel)
    if attention_of(submodel.config) != "sdpa" or not can_exchange_sdpa(submodel):
        return False
    set_attention(submodel.config, NAME)
    return True


def can_exchange_sdpa(submodel: PreTrainedModel) -> bool:
    """Return whether a submodel uses transformers' attention functions and never compares with the name ``sdpa``.

    Falcon and GLM-MoE choose their masks by that name.
    """
    code = frozenset(type(module).__module__ for module in submodel.modules())
    return can_set_attention(submodel) and not _compares_with_sdpa(code)


@functools.cache
def _compares_with_sdpa(code: frozenset[str]) -> bool:
    return any('"sdpa"' in inspect.getsource(sys.modules[name]) for name in code if ".models." in name)


AttentionInterface.register(NAME, lean_dropout_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
