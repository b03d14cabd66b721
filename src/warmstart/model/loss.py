"""Next-token loss in float32 or wider, computed from logits or from hidden states.

``forward(labels=...)`` returns logits (B, T, V), and their gradient is as large. Training needs only the loss, so it
computes logits at label positions only, a chunk at a time.

Shapes: B batch, T target length, N label positions (labels != -100), H decoder hidden size, V vocabulary.
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
CHUNK = 4096  # label positions per chunk: 4096 x 50257 x 4 bytes = 0.8 GB of logits


class TrainingLoss(NamedTuple):
    """The result of ``EncoderDecoderModel.training_loss``: three scalars."""

    summed: Tensor
    """Loss summed over label positions, float32, with gradient."""
    nll: Tensor
    """Negative log-likelihood in nats summed over label positions, without label smoothing, float32, detached."""
    tokens: Tensor
    """Number of label positions."""

    @property
    def mean(self) -> Tensor:
        """Loss per label position, for an optimizer step of one batch.

        For a step of several batches, divide each ``summed`` by the ``tokens`` of all of them.
        """
        return self.summed / self.tokens.clamp(min=1)


def cross_entropy(logits_BTV: Tensor, labels_BT: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
    """Compute the mean cross-entropy over label positions.

    Args:
        logits_BTV: Logits (B, T, V).
        labels_BT: Labels (B, T), -100 at positions without a label.
        num_items_in_batch: Divide the sum by this number instead, if an optimizer step spans several batches.
    """
    logits_NV = logits_BTV.reshape(-1, logits_BTV.shape[-1])
    labels_N = labels_BT.reshape(-1)
    is_label_N = labels_N != IGNORED
    loss: Tensor
    loss, _ = _SummedLoss.apply(logits_NV, labels_N.where(is_label_N, 0), 0.0, is_label_N)
    return loss / (is_label_N.sum() if num_items_in_batch is None else num_items_in_batch)


class Head(StrEnum):
    """How a decoder computes logits from the hidden states that enter its LM head."""

    plain = "plain"
    """Only by the LM head: label positions go through it in chunks."""
    scaled = "scaled"
    """Logits are scaled or capped after the LM head (Gemma 2, Cohere, Granite): all label positions go through the
    decoder's own code at once."""
    hidden = "hidden"
    """The LM head is not a module that a hook can observe: the full logits are built."""


def lm_head(model: Any) -> tuple[nn.Module, Head]:
    """Return the LM head of a joint model, and how its decoder computes logits, which the first call finds out."""
    output = model.get_output_embeddings()
    if model.head_kind is None:
        label = torch.zeros((1, 1), dtype=torch.long, device=model.device)
        model.head_kind = judge_head(model.decoder, model.prepare_decoder_input_ids_from_labels(label), output)
    return output, model.head_kind


@torch.no_grad()
def judge_head(decoder: nn.Module, ids_BT: Tensor, output: nn.Module | None) -> Head:
    """Find out how ``decoder`` computes logits, by one call.

    Args:
        decoder: A causal language model.
        ids_BT: Token ids (B, T) for the call.
        output: The decoder's LM head; None if it has no such module.
    """
    if output is None:
        return Head.hidden
    devices = [ids_BT.device] if ids_BT.device.type == "cuda" else []
    with torch.random.fork_rng(devices):  # a resumed run repeats this call and must draw the same dropout afterwards
        with _observed(output, lambda hidden: hidden) as observed:
            logits = decoder(input_ids=ids_BT, use_cache=False, return_dict=True).logits
        if len(observed) != 1 or observed[0].shape[:-1] != logits.shape[:-1]:
            return Head.hidden
        return Head.plain if torch.equal(output(observed[0]), logits) else Head.scaled


@contextmanager
def _observed(output: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[list[Tensor]]:
    """Apply ``change`` to the input of ``output`` within the context, and collect the original inputs (B, T, H).

    A transform in front of the LM head (BERT, RoBERTa) runs as the decoder defines it.
    """
    caught: list[Tensor] = []
    thread = threading.get_ident()  # another thread may use the same model

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


class LabelStates(NamedTuple):
    """What enters the last step to the logits, at label positions only."""

    states_NX: Tensor
    """Hidden states (N, H) if the LM head is plain, else logits (N, V)."""
    labels_N: Tensor


def label_states(
    buckets: Sequence[tuple[Callable[[], Any], Tensor]], output: nn.Module, head: Head
) -> Iterator[LabelStates]:
    """Run the decoder on a batch that is split into target-length buckets.

    Args:
        buckets: For each bucket a function that runs the decoder, and the labels (B, T).
        output: The decoder's LM head.
        head: How the decoder computes logits.

    Yields:
        The states and labels of all buckets together if the LM head is plain, else those of each bucket. Their order is
        that of the batch: by example, then by position.
    """
    # nonzero() waits for the device, so it runs before the decoder.
    found = [(decode, (labels != IGNORED).nonzero(as_tuple=True), labels) for decode, labels in buckets]
    if head is Head.plain:
        with _observed(output, lambda hidden: hidden[:, :0]) as observed:
            for decode, _, _ in found:
                decode()
        hidden_NH = torch.cat([hidden[at] for hidden, (_, at, _) in zip(observed, found, strict=True)])
        yield LabelStates(hidden_NH, torch.cat([labels[at] for _, at, labels in found]))
        return
    for decode, at, labels in found:
        if head is Head.hidden:
            yield LabelStates(decode().logits[at], labels[at])
        else:
            with _observed(output, lambda hidden, at=at: hidden[at][None]):  # type: ignore[misc]
                logits_NV = decode().logits[0]
            yield LabelStates(logits_NV, labels[at])


def summed_loss(
    groups: Iterable[LabelStates], output: nn.Module, head: Head, label_smoothing: float
) -> tuple[Tensor, Tensor]:
    """Compute the loss of a batch from the result of ``label_states``.

    With a plain LM head, the label positions of all buckets are processed ``CHUNK`` at a time. If there is more than
    one chunk, logits are recomputed in the backward pass instead of stored.

    Args:
        groups: The states and labels.
        output: The decoder's LM head.
        head: How the decoder computes logits.
        label_smoothing: Share of the probability that is spread evenly over the vocabulary.

    Returns:
        The summed smoothed loss with gradient, and each label's negative log-likelihood (N,), detached; both float32.
    """
    if head is not Head.plain:
        return _summed(chunk_loss(*group, label_smoothing) for group in groups)
    (group,) = groups

    def from_hidden(hidden_NH: Tensor, labels_N: Tensor) -> tuple[Tensor, Tensor]:
        return chunk_loss(output(hidden_NH), labels_N, label_smoothing)

    return in_chunks(from_hidden, *group)


def in_chunks(loss: Callable[..., tuple[Tensor, Tensor]], *of_positions: Tensor) -> tuple[Tensor, Tensor]:
    """Compute a loss ``CHUNK`` label positions at a time; several chunks recompute logits in the backward pass.

    Args:
        loss: Returns a summed loss and a value for each position (N,).
        of_positions: The arguments of ``loss``, each (N, ...).
    """
    if of_positions[0].shape[0] <= CHUNK:
        return loss(*of_positions)
    chunks = zip(*(one.split(CHUNK) for one in of_positions), strict=True)
    return _summed(checkpoint(loss, *chunk, use_reentrant=False) for chunk in chunks)


def _summed(found: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    losses, nlls = zip(*found, strict=True)
    return torch.stack(losses).sum(), torch.cat(nlls)


def chunk_loss(logits_NV: Tensor, labels_N: Tensor, label_smoothing: float) -> tuple[Tensor, Tensor]:
    """Return the summed loss and the negative log-likelihoods (N,) of labels, from their logits."""
    loss, nll_N = _SummedLoss.apply(logits_NV, labels_N, label_smoothing)
    return loss, nll_N


class _SummedLoss(torch.autograd.Function):
    """Summed cross-entropy that computes its gradient in the forward pass, with fewer passes over N x V than autograd.

    The gradient (softmax minus labels) is stored in the dtype of the logits. float16 is an exception: small values
    would become zero before the loss scale is applied, so float32 is kept. Positions outside ``is_label_N`` do not
    count; None counts all.
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
