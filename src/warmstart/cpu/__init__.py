"""Optional faster code for CPUs.

    cpu.build()               # compile the kernels for decoding, once per machine
    cpu.accelerate(model)     # before training
    with cpu.decoding(model): # around a generation
        ...

If the environment sets ``WARMSTART_CPU=0`` before warmstart is imported, all operations are those of torch and
transformers, and no other module of this package is imported. The fast path gives results that are equal up to
rounding; dropout draws other masks from the same seed. Code outside this package imports only this module.

Shapes: B batch, N heads, G key and value heads, T queries, S keys, D head size; R sequences, V vocabulary.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

ENABLED = os.environ.get("WARMSTART_CPU") != "0"

if ENABLED:
    # At import, because a model that another process pickled refers to the registered attention functions.
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
    """Compile the kernels for decoding if they are not built yet, and load them. Compiling is logged.

    This needs Linux, AVX-512 and GCC (``g++``). The library is stored in ``~/.cache/warmstart`` (or
    ``$WARMSTART_CACHE``) for each user and processor. ``generate`` uses the kernels if they are built, and never builds
    them; small models do not need them.

    Returns:
        Whether ``generate`` uses the kernels in this process. If not, the reason is logged and torch's operations are
        used.
    """
    return ENABLED and kernels.build_cpu_kernels()


def keep_freed_memory() -> bool:
    """Keep freed memory in the process instead of returning it to the operating system.

    Training on a CPU becomes faster, and the peak memory higher.

    Returns:
        Whether it is kept. False without glibc, or if the fast path is switched off.
    """
    return ENABLED and allocator.keep_freed_memory()


def accelerate(model: Any) -> None:
    """Reduce the time and memory of training on a CPU, in place; other devices are not affected.

    Dropout, and the attention of submodels with ``sdpa``, are replaced by versions that store no masks and no attention
    weights. Dropout masks then differ from those that torch draws from the same seed.

    Args:
        model: A model with the attributes ``encoder`` and ``decoder``.
    """
    if ENABLED:
        for submodel in (model.encoder, model.decoder):
            attention.use_lean_dropout(submodel)


@contextmanager
def decoding(model: Any) -> Iterator[None]:
    """Speed up ``model.decoder`` on a CPU within the context: prepacked weights, decode-step attention, GELU.

    Applies to calls from this thread. Contexts may be nested; prepacked weights are freed when the outermost one ends.

    Args:
        model: A model with the attribute ``decoder``.
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
    """Compute the attention of a decoding step.

    Args:
        query: (B, N, T, D).
        key: (B, G, S, D).
        value: (B, G, S, D).
        mask: (B, 1, T or 1, S), bool (True is visible) or added to the scores; None: all keys are visible.

    Returns:
        (B, N, T, D); None if the caller should use torch's attention.
    """
    if not ENABLED or not decode_attention.serves(query, key, mask):
        return None
    return decode_attention.attend(query, key, value, mask)


def use_beam_cache(model: Any, cache: Any) -> None:
    """Replace the layers of ``cache`` by layers that reorder beams and append a token in at most one copy, in place.

    Args:
        model: The model that fills the cache: a decoder, or a joint model whose config has ``decoder``.
        cache: A ``DynamicCache`` of the target. Its contents are kept.
    """
    if ENABLED:
        config = getattr(model.config, "decoder", model.config)
        beam_cache.use_beam_layers(cache, indexed=decode_attention.is_used_by(config))


def log_probabilities(logits_RV: Tensor) -> Tensor:
    """Compute ``log_softmax`` of logits (R, V) in float32, without a gradient."""
    if ENABLED:
        return elementwise.log_probabilities(logits_RV)
    return torch.log_softmax(logits_RV, dim=-1, dtype=torch.float32)


def best_candidates(scores_BX: Tensor, count: int, *, ties_as_topk: bool) -> tuple[Tensor, Tensor]:
    """Find the ``count`` highest scores of each source, as ``topk`` does.

    Args:
        scores_BX: Scores (B, any).
        count: Number of scores to find.
        ties_as_topk: Order equal scores as ``topk`` does; without it any order is possible, which is faster.

    Returns:
        The scores and their indices, both (B, count).
    """
    if ENABLED:
        return topk.best_candidates(scores_BX, count, ties_as_topk=ties_as_topk)
    values, indices = scores_BX.topk(count)
    return values, indices
