"""Attention with dropout on a CPU: nothing of queries x keys is kept for the backward pass, and the mask is cheap.

    use_lean_dropout(model.encoder)   # for each half that runs transformers' ``sdpa``

torch's fused attention has no dropout on a CPU. What it falls back to computes in float32, keeps three tensors of heads
x queries x keys for each layer, and draws one random number for each of their elements. Here some rows are computed
at a time, in the precision of the queries; backward, their probabilities are computed again and their mask is drawn
again from its seed, as in FlashAttention (Dao et al. 2022, arXiv 2205.14135): 7 products of that size instead of 6.
Without dropout, and on any other device, this is transformers' ``sdpa``.

Shapes: B batch, N heads, G heads of keys and values, T queries, S keys, D width of a head.
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

from warmstart.cpu.dropout import dropped_share, exchange_dropout, keep_, kept_bits

NAME = "sdpa_lean_dropout"
# Elements of queries x keys at a time, 32 MB in bf16. Smaller pieces would fit a cache, but each is a dozen operations
# whose threads wait for one another: on a busy machine 2**20 took seven times as long (docs/performance.md).
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
    """What (B, N, T, D) read from keys and values (B, G, S, D), with dropout of the probabilities.

    ``mask`` broadcasts to (B, N, T, S): bool (True is read) or added to the scores. torch's generator is asked for one
    number, from which the whole mask follows.
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
        for place, kept in _chunks(query, key, share, seed):
            probabilities = attention_probabilities(query[place], key[place], _part(mask, place), scale)
            read[place] = keep_(probabilities, kept) @ value[place]
        return read.mul_(1 / (1 - share))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_read: Tensor) -> Any:
        query, key, value, mask = ctx.saved_tensors
        share, scale, seed = ctx.chosen
        grad_read = grad_read * (1 / (1 - share))
        grads = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in (query, key, value)]
        grad_query, grad_key, grad_value = grads
        for place, kept in _chunks(query, key, share, seed):
            probabilities = attention_probabilities(query[place], key[place], _part(mask, place), scale)
            grad = keep_(grad_read[place] @ value[place].transpose(-1, -2), kept)
            grad = torch._softmax_backward_data(grad, probabilities, -1, probabilities.dtype)
            grad_value[place] = keep_(probabilities, kept).transpose(-1, -2) @ grad_read[place]
            grad_query[place] = grad @ key[place]
            grad_key[place] = grad.transpose(-1, -2) @ query[place]
        return grad_query.mul_(scale), grad_key.mul_(scale), grad_value, None, None, None, None


Place = tuple[slice, slice]  # rows and heads


def _chunks(query: Tensor, key: Tensor, share: float, seed: int) -> Iterator[tuple[Place, Tensor]]:
    """Rows and heads that are computed at one time, and the mask of their probabilities: the same for a seed."""
    batch, heads, queries, _ = query.shape
    keys = key.shape[2]
    some_heads = min(heads, max(1, CHUNK // (queries * keys)))
    rows = max(1, CHUNK // (heads * queries * keys)) if some_heads == heads else 1
    generator = torch.Generator().manual_seed(seed)
    for row in range(0, batch, rows):
        for head in range(0, heads, some_heads):
            place = slice(row, min(row + rows, batch)), slice(head, min(head + some_heads, heads))
            shape = [place[0].stop - row, place[1].stop - head, queries, keys]
            yield place, kept_bits(math.prod(shape), share, generator, query.dtype).view(shape)


def _part(mask: Tensor | None, place: Place) -> Tensor | None:
    if mask is None:
        return None
    return mask[place[0], place[1] if mask.shape[1] > 1 else slice(None)]


def attention_probabilities(query: Tensor, key: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Softmax over the keys; all zero where a query may read none, as torch's own attention gives."""
    scores = (query * scale) @ key.transpose(-1, -2)
    if mask is None:
        return torch.softmax(scores, dim=-1)
    if mask.dtype != torch.bool:
        return torch._safe_softmax(scores.add_(mask), dim=-1)
    barred = torch.zeros_like(mask, dtype=scores.dtype).masked_fill_(~mask, float("-inf"))
    probabilities = torch.softmax(scores.add_(barred), dim=-1)  # a third of masked_fill_'s time
    reads = mask.any(dim=-1, keepdim=True)
    return probabilities if reads.all() else probabilities.masked_fill_(~reads, 0)


def use_lean_dropout(half: PreTrainedModel) -> bool:
    """Let a half's dropout be a :class:`LeanDropout`, and its attention this one where it runs transformers' ``sdpa``.

    False where another attention was chosen, the half does not go through transformers' attention functions, or its
    code asks for ``sdpa`` by name: then its attention stays. ``set_attn_implementation("sdpa")`` goes back to it.
    """
    exchange_dropout(half)
    if half.config._attn_implementation != "sdpa" or not can_exchange_sdpa(half):
        return False
    half.config._attn_implementation = NAME
    return True


def can_exchange_sdpa(half: PreTrainedModel) -> bool:
    """Whether a half goes through transformers' attention functions, and no code of its own asks for ``sdpa`` by name.

    Types that do build their masks by that name (Falcon, GLM-MoE).
    """
    code = frozenset(type(module).__module__ for module in half.modules())
    return half._can_set_attn_implementation() and not _asks_for_sdpa(code)


@functools.cache
def _asks_for_sdpa(code: frozenset[str]) -> bool:
    return any('"sdpa"' in inspect.getsource(sys.modules[name]) for name in code if ".models." in name)


AttentionInterface.register(NAME, lean_dropout_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
