"""Next-token loss in float32 or wider: over logits, or straight from hidden states without building the full logits.

Shapes: B batch, T target length, N label positions (labels != -100), H decoder width, V vocabulary.

The documented ``forward(labels=...)`` returns logits of B x T x V. Training does not need them: of 16 summaries padded
to 128 tokens over BERT's vocabulary they are 250 MB in fp32, and as much again for their gradient.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

IGNORED = -100
CHUNK = 4096  # label positions whose logits exist at one time: 4096 x 50257 x 4 bytes = 0.8 GB


def cross_entropy(logits_BTV: Tensor, labels_BT: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
    """Mean over label positions, or sum over ``num_items_in_batch`` where the caller spans several batches."""
    logits_NV = logits_BTV.reshape(-1, logits_BTV.shape[-1])
    logits_NV = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))
    labels_N = labels_BT.reshape(-1)
    if num_items_in_batch is None:
        return F.cross_entropy(logits_NV, labels_N, ignore_index=IGNORED)
    return F.cross_entropy(logits_NV, labels_N, ignore_index=IGNORED, reduction="sum") / num_items_in_batch


class Head(StrEnum):
    """How a decoder comes from the hidden states that enter its output matrix to its logits."""

    plain = "plain"
    """By the output matrix alone: chunks of label positions go through it one after the other."""
    scaled = "scaled"
    """Scaled or capped behind the matrix (Gemma 2, Cohere, Granite): the label positions go through the decoder's own
    code, all at once."""
    hidden = "hidden"
    """Not through a module that can be watched: the full logits are built."""


def judge_head(decode: Callable[[], Any], output: nn.Module | None) -> Head:
    """Try it: what ``decode()`` returns against what the output matrix makes of the hidden states that enter it."""
    if output is None:
        return Head.hidden
    with _entering(output, lambda hidden: hidden) as entered:
        logits = decode().logits
    if len(entered) != 1 or entered[0].shape[:-1] != logits.shape[:-1]:
        return Head.hidden
    return Head.plain if torch.equal(output(entered[0]), logits) else Head.scaled


@contextmanager
def _entering(output: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[list[Tensor]]:
    """Inside, ``output`` is given changed hidden states, and what it would have been given (B, T, H) is caught.

    Any head's own transform before the matrix (BERT's, RoBERTa's) still runs as the decoder defines it.
    """
    caught: list[Tensor] = []

    def catch(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        caught.append(args[0])
        return (change(args[0]),)

    handle = output.register_forward_pre_hook(catch)
    try:
        yield caught
    finally:
        handle.remove()


def summed_loss(
    decode: Callable[[], Any],
    output: nn.Module,
    head: Head,
    is_label_BT: Tensor,
    labels_BT: Tensor,
    label_smoothing: float,
) -> tuple[Tensor, Tensor]:
    """The summed smoothed loss (with gradient) and each label's negative log-likelihood (N, detached), in float32.

    ``decode()`` runs the decoder; ``output`` is its output matrix. Behind a plain head positions are taken ``CHUNK`` at
    a time; with more than one chunk the logits are recomputed in the backward pass instead of kept.
    """
    labels_N = labels_BT[is_label_BT]
    if head is Head.hidden:
        return _chunk_loss(decode().logits[is_label_BT], labels_N, label_smoothing)
    if head is Head.scaled:
        with _entering(output, lambda hidden: hidden[is_label_BT][None]):
            return _chunk_loss(decode().logits[0], labels_N, label_smoothing)
    with _entering(output, lambda hidden: hidden[:, :0]) as entered:
        decode()
    hidden_NH = entered[0][is_label_BT]

    def chunk_loss(hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return _chunk_loss(output(hidden), labels, label_smoothing)

    if hidden_NH.shape[0] <= CHUNK:
        return chunk_loss(hidden_NH, labels_N)
    losses, nlls = zip(
        *(
            checkpoint(chunk_loss, hidden, labels, use_reentrant=False)
            for hidden, labels in zip(hidden_NH.split(CHUNK), labels_N.split(CHUNK), strict=True)
        ),
        strict=True,
    )
    return torch.stack(losses).sum(), torch.cat(nlls)


def _chunk_loss(logits_NV: Tensor, labels_N: Tensor, label_smoothing: float) -> tuple[Tensor, Tensor]:
    logits = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))
    log_total = torch.logsumexp(logits, dim=-1)
    nll_N = log_total - logits.gather(-1, labels_N[:, None])[:, 0]
    if not label_smoothing:
        return nll_N.sum(), nll_N.detach()
    uniform = (log_total - logits.mean(dim=-1)).sum()
    return (1 - label_smoothing) * nll_N.sum() + label_smoothing * uniform, nll_N.detach()
