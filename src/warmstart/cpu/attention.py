"""Attention with dropout on a CPU: nothing of queries x keys is kept for the backward pass, and the mask is cheap.

    use_lean_dropout(model.encoder)   # for each submodel that runs transformers' ``sdpa``

torch's fused attention has no dropout on a CPU. What it falls back to computes in float32, keeps three tensors of heads
x queries x keys for each layer, and draws one random number for each of their elements. Here some rows are computed
at a time, in the precision of the queries. The backward pass computes their probabilities again and draws their mask
again from its seed, as in FlashAttention (Dao et al. 2022, arXiv 2205.14135): 7 products of that size instead of 6.
Without dropout, and on any other device, this is transformers' ``sdpa``.

Shapes: B batch, N heads, G heads of keys and values, T queries, S keys, D head size.
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
# Elements of queries x keys at a time, 32 MB in bf16. Smaller pieces would fit a cache, but each is a dozen operations
# whose threads wait for one another, which is slow on a busy machine (docs/performance.md).
CHUNK = 2**24


@torch.compiler.disable  # type: ignore[untyped-decorator]  # its mask is drawn from a number, which a graph would have to wait for
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
    """transformers' attention function: (B, N, T, D) and twice (B, G, S, D) to (B, T, N, D), and no weights."""
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
        read = attention_with_dropout(query, key, value, attention_mask, dropout, scaling)
    return read.transpose(1, 2).contiguous(), None


def attention_with_dropout(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float, scaling: float | None = None
) -> Tensor:
    """Attend from (B, N, T, D) to keys and values (B, G, S, D), with dropout of the probabilities.

    ``mask`` broadcasts to (B, N, T, S): bool (True is read) or added to the scores. torch's generator gives one number,
    the seed of all that is dropped.
    """
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    if mask is not None:
        mask = mask.expand(query.shape[0], mask.shape[1] if mask.dim() == 4 else 1, -1, -1)
    seed = int(torch.randint(2**62, ()))
    scale = 1 / math.sqrt(query.shape[-1]) if scaling is None else scaling
    read: Tensor = _Attention.apply(query, key, value, mask, dropped_share(dropout), scale, seed)
    return read


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, share: float, scale: float, seed: int
    ) -> Tensor:
        ctx.save_for_backward(query, key, value, mask)
        ctx.chosen = share, scale, seed
        read = torch.empty_like(query, memory_format=torch.contiguous_format)
        read = read if value.shape[-1] == query.shape[-1] else query.new_empty(*query.shape[:-1], value.shape[-1])
        for part, kept in _chunks(query, key, share, seed):
            probabilities = attention_probabilities(query[part], key[part], _part(mask, part), scale)
            read[part] = keep_(probabilities, kept) @ value[part]
        return read.mul_(1 / (1 - share))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_read: Tensor) -> Any:
        query, key, value, mask = ctx.saved_tensors
        share, scale, seed = ctx.chosen
        grad_read = grad_read * (1 / (1 - share))
        grads = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in (query, key, value)]
        grad_query, grad_key, grad_value = grads
        for part, kept in _chunks(query, key, share, seed):
            probabilities = attention_probabilities(query[part], key[part], _part(mask, part), scale)
            grad = keep_(grad_read[part] @ value[part].transpose(-1, -2), kept)
            grad = softmax_gradient(grad, probabilities)
            grad_value[part] = keep_(probabilities, kept).transpose(-1, -2) @ grad_read[part]
            grad_query[part] = grad @ key[part]
            grad_key[part] = grad.transpose(-1, -2) @ query[part]
        return grad_query.mul_(scale), grad_key.mul_(scale), grad_value, None, None, None, None


Part = tuple[slice, slice]  # rows and heads


def _chunks(query: Tensor, key: Tensor, share: float, seed: int) -> Iterator[tuple[Part, Tensor]]:
    """Yield rows and heads that are computed at one time, and the mask of their probabilities: the same for a seed."""
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


def _part(mask: Tensor | None, part: Part) -> Tensor | None:
    if mask is None:
        return None
    return mask[part[0], part[1] if mask.shape[1] > 1 else slice(None)]


def attention_probabilities(query: Tensor, key: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Compute the softmax over the keys: all zero where a query may read none, as in torch's own attention."""
    scores = (query * scale) @ key.transpose(-1, -2)
    if mask is None:
        return torch.softmax(scores, dim=-1)
    if mask.dtype != torch.bool:
        return safe_softmax(scores.add_(mask))
    barred = torch.zeros_like(mask, dtype=scores.dtype).masked_fill_(~mask, float("-inf"))
    probabilities = torch.softmax(scores.add_(barred), dim=-1)  # faster than masked_fill_
    reads = mask.any(dim=-1, keepdim=True)
    return probabilities if reads.all() else probabilities.masked_fill_(~reads, 0)


def use_lean_dropout(submodel: PreTrainedModel) -> bool:
    """Replace a submodel's dropout by :class:`LeanDropout`, and its attention by this one if it is ``sdpa``.

    ``set_attn_implementation("sdpa")`` restores the attention.

    Returns:
        Whether the attention was replaced: not if another was chosen, if the submodel does not use transformers'
        attention functions, or if its code compares with ``sdpa`` by name.
    """
    exchange_dropout(submodel)
    if attention_of(submodel.config) != "sdpa" or not can_exchange_sdpa(submodel):
        return False
    set_attention(submodel.config, NAME)
    return True


def can_exchange_sdpa(submodel: PreTrainedModel) -> bool:
    """Return whether a submodel uses transformers' attention functions without comparing with ``sdpa`` by name.

    Falcon and GLM-MoE build their masks by that name.
    """
    code = frozenset(type(module).__module__ for module in submodel.modules())
    return can_set_attention(submodel) and not _asks_for_sdpa(code)


@functools.cache
def _asks_for_sdpa(code: frozenset[str]) -> bool:
    return any('"sdpa"' in inspect.getsource(sys.modules[name]) for name in code if ".models." in name)


AttentionInterface.register(NAME, lean_dropout_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
