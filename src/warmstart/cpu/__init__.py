"""The optional fast path for CPUs: one interface, one switch.

    cpu.build()               # compile the kernels for decoding, once for each machine
    cpu.accelerate(model)     # before training
    with cpu.decoding(model): # around a generation
        ...

``WARMSTART_CPU=0`` in the environment, set before warmstart is imported, switches all of it off: every operation is
torch's or transformers' own, and no other module of this package is imported. Results differ by rounding, and dropout
draws other numbers. Nothing outside this package imports a module of it, so that it can be removed.

Shapes: B batch, N heads, G heads of keys and values, T queries, S keys, D head size; R rows, V vocabulary.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

ENABLED = os.environ.get("WARMSTART_CPU") != "0"

if ENABLED:
    # On import and not on first use: a model that another process pickled names its attention functions.
    from warmstart.cpu import (
        allocator,
        attention,
        beam_cache,
        decode_attention,
        elementwise,
        kernels,
        packed_linear,
        topk,
    )


def build() -> bool:
    """Compile the kernels for decoding if they are not built yet (10 to 30 s, logged), and load them.

    Needs Linux, AVX-512 and GCC (``g++``). The library is kept in ``~/.cache/warmstart`` (or ``$WARMSTART_CACHE``), so
    it is compiled once for each user and processor. ``generate`` uses the kernels if they are built, and never builds
    them; small models do not need them.

    Returns:
        Whether ``generate`` uses the kernels in this process. If they cannot be built, the reason is logged and
        torch's operations serve.
    """
    return ENABLED and kernels.build_cpu_kernels()


def keep_freed_memory() -> bool:
    """Keep freed memory for the next step instead of returning it to the operating system; for the whole process.

    Training on a CPU is faster, for a higher peak of memory.

    Returns:
        Whether it is kept: not without glibc, and not if the fast path is switched off.
    """
    return ENABLED and allocator.keep_freed_memory()


def accelerate(model: Any) -> None:
    """Make the training of ``model`` faster and smaller on a CPU; on other devices it computes what it did.

    Replaces the dropout of encoder and decoder, and the attention of those that run transformers' ``sdpa``, by versions
    that keep no masks and no attention weights. The same seed then draws other dropout masks.

    Args:
        model: a model with the attributes ``encoder`` and ``decoder``.
    """
    if ENABLED:
        for submodel in (model.encoder, model.decoder):
            attention.use_lean_dropout(submodel)


@contextmanager
def decoding(model: Any) -> Iterator[None]:
    """Inside, ``model.decoder`` decodes faster if it is on a CPU: prepacked weights, decode-step attention, GELU.

    Holds for calls from this thread. Calls may be nested: prepacked weights live until the outermost ends.
    """
    if not ENABLED:
        yield
        return
    with (
        packed_linear.prepacked_weights(model.decoder),
        decode_attention.decode_attention(model.decoder),
        elementwise.gelu_in_one_pass(model.decoder),
    ):
        yield


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor | None:
    """Attend from (B, N, T, D) to (B, G, S, D) as a decoding step does; None where torch's own attention should serve.

    Args:
        query: (B, N, T, D).
        key: (B, G, S, D).
        value: (B, G, S, D).
        mask: (B, 1, T or 1, S), bool (True is read) or added to the scores; None reads all keys.
    """
    if not ENABLED or not decode_attention.serves(query, key, mask):
        return None
    return decode_attention.attend(query, key, value, mask)


def use_beam_cache(model: Any, cache: Any) -> None:
    """Replace the plain layers of ``cache`` by layers that reorder beams and append a token in one copy or none.

    Args:
        model: the model that fills the cache: a decoder, or a joint model whose config has ``decoder``.
        cache: a ``DynamicCache`` of the target. What it holds stays.
    """
    if ENABLED:
        config = getattr(model.config, "decoder", model.config)
        beam_cache.use_beam_layers(cache, indexed=decode_attention.is_used_by(config))


def log_probabilities(logits_RV: Tensor) -> Tensor:
    """Compute ``log_softmax`` of (R, V) in float32, without a gradient."""
    if ENABLED:
        return elementwise.log_probabilities(logits_RV)
    return torch.log_softmax(logits_RV, dim=-1, dtype=torch.float32)


def best_candidates(scores_BX: Tensor, count: int, *, ties_as_topk: bool) -> tuple[Tensor, Tensor]:
    """Find the ``count`` best scores of each row, as ``topk`` does.

    Args:
        scores_BX: (B, any).
        count: how many to find.
        ties_as_topk: equal scores are ordered as ``topk`` orders them; otherwise any order will do, which is faster.

    Returns:
        Scores and their indices, both (B, count).
    """
    if ENABLED:
        return topk.best_candidates(scores_BX, count, ties_as_topk=ties_as_topk)
    values, indices = scores_BX.topk(count)
    return values, indices
