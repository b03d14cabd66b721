"""Next-token loss in float32 or wider: over logits, or straight from hidden states without building the full logits.

Shapes: B batch, T target length, N label positions (labels != -100), H decoder width, V vocabulary.

The documented ``forward(labels=...)`` returns logits of B x T x V. Training does not need them: of 16 summaries padded
to 128 tokens over BERT's vocabulary they are 250 MB in fp32, and as much again for their gradient.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

IGNORED = -100
CHUNK = 4096  # label positions whose logits exist at one time: 4096 x 50257 x 4 bytes = 0.8 GB


class TrainingLoss(NamedTuple):
    """What ``EncoderDecoderModel.training_loss`` returns: float32 scalars, and a count."""

    summed: Tensor
    """The loss summed over label positions, with gradient."""
    nll: Tensor
    """The negative log-likelihood summed over label positions, without smoothing, detached."""
    tokens: Tensor
    """The number of label positions."""

    @property
    def mean(self) -> Tensor:
        """The loss of an optimizer step of one batch. A step of several divides ``summed`` by all their ``tokens``."""
        return self.summed / self.tokens.clamp(min=1)


def cross_entropy(logits_BTV: Tensor, labels_BT: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
    """Mean over label positions, or sum over ``num_items_in_batch`` where the caller spans several batches."""
    logits_NV = logits_BTV.reshape(-1, logits_BTV.shape[-1])
    labels_N = labels_BT.reshape(-1)
    is_label_N = labels_N != IGNORED
    loss: Tensor
    loss, _ = _SummedLoss.apply(logits_NV, labels_N.where(is_label_N, 0), 0.0, is_label_N)
    return loss / (is_label_N.sum() if num_items_in_batch is None else num_items_in_batch)


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
    thread = threading.get_ident()  # another one may use the same model

    def catch(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if threading.get_ident() != thread:
            return None
        caught.append(args[0])
        return (change(args[0]),)

    handle = output.register_forward_pre_hook(catch)
    try:
        yield caught
    finally:
        handle.remove()


def summed_loss(
    parts: Sequence[tuple[Callable[[], Any], Tensor]], output: nn.Module, head: Head, label_smoothing: float
) -> tuple[Tensor, Tensor]:
    """The summed smoothed loss (with gradient) and each label's negative log-likelihood (N, detached), in float32.

    ``parts`` are some rows each: ``decode()`` runs the decoder on them, and their labels (B, T). ``output`` is the
    decoder's output matrix. Behind a plain head the positions of all parts are taken ``CHUNK`` at a time; with more
    than one chunk the logits are recomputed in the backward pass instead of kept.
    """
    # As indices and before the first decoder runs: a device is waited for to know how many there are.
    found = [(decode, (labels != IGNORED).nonzero(as_tuple=True), labels) for decode, labels in parts]
    if head is Head.hidden:
        return _summed(_chunk_loss(decode().logits[at], labels[at], label_smoothing) for decode, at, labels in found)
    if head is Head.scaled:
        losses = []
        for decode, at, labels in found:
            with _entering(output, lambda hidden, at=at: hidden[at][None]):  # type: ignore[misc]
                losses.append(_chunk_loss(decode().logits[0], labels[at], label_smoothing))
        return _summed(losses)
    with _entering(output, lambda hidden: hidden[:, :0]) as entered:
        for decode, _, _ in found:
            decode()
    hidden_NH = torch.cat([hidden[at] for hidden, (_, at, _) in zip(entered, found, strict=True)])
    labels_N = torch.cat([labels[at] for _, at, labels in found])

    def chunk_loss(hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return _chunk_loss(output(hidden), labels, label_smoothing)

    if hidden_NH.shape[0] <= CHUNK:
        return chunk_loss(hidden_NH, labels_N)
    return _summed(
        checkpoint(chunk_loss, hidden, labels, use_reentrant=False)
        for hidden, labels in zip(hidden_NH.split(CHUNK), labels_N.split(CHUNK), strict=True)
    )


def _summed(found: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    losses, nlls = zip(*found, strict=True)
    return torch.stack(losses).sum(), torch.cat(nlls)


def _chunk_loss(logits_NV: Tensor, labels_N: Tensor, label_smoothing: float) -> tuple[Tensor, Tensor]:
    loss, nll_N = _SummedLoss.apply(logits_NV, labels_N, label_smoothing)
    return loss, nll_N


class _SummedLoss(torch.autograd.Function):
    """Cross-entropy whose gradient is made on the way: what autograd would do in a dozen passes over N x V is four.

    softmax minus the labels is kept in the logits' own precision; but for float16, where the small ones would vanish
    before the loss scale reaches them. Rows outside ``is_label_N`` (None: all are inside) add nothing to the loss.
    """

    @staticmethod
    def forward(
        ctx: Any, logits_NV: Tensor, labels_N: Tensor, smoothing: float, is_label_N: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        wide = torch.promote_types(logits_NV.dtype, torch.float32)
        scores_NV = torch.log_softmax(logits_NV, dim=-1, dtype=wide)
        labels_N1 = labels_N[:, None]
        nll_N = -scores_NV.gather(-1, labels_N1)[:, 0]
        loss_N = (1 - smoothing) * nll_N - smoothing * scores_NV.mean(dim=-1) if smoothing else nll_N
        loss = (loss_N if is_label_N is None else loss_N.where(is_label_N, 0)).sum()
        ctx.mark_non_differentiable(nll_N)
        if ctx.needs_input_grad[0]:
            grad_NV = scores_NV.exp_()
            if smoothing:
                grad_NV.sub_(smoothing / grad_NV.shape[-1])
            grad_NV.scatter_add_(-1, labels_N1, grad_NV.new_full(labels_N1.shape, smoothing - 1))
            ctx.dtype = logits_NV.dtype
            grad_NV = grad_NV if ctx.dtype == torch.float16 else grad_NV.to(ctx.dtype)
            ctx.save_for_backward(grad_NV if is_label_N is None else grad_NV.masked_fill_(~is_label_N[:, None], 0))
        return loss, nll_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, _: Any) -> Any:
        (grad_NV,) = ctx.saved_tensors
        return (grad_NV * grad_loss).to(ctx.dtype), None, None, None
