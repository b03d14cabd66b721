"""Next-token loss in float32: over logits, or straight from hidden states without ever building the full logits.

Shapes: B batch, T target length, N label positions (labels != -100), H decoder width, V vocabulary.

The documented ``forward(labels=...)`` returns logits of B x T x V. Training does not need them: of 16 summaries padded
to 128 tokens over BERT's vocabulary they are 250 MB in fp32, and as much again for their gradient.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

IGNORED = -100
CHUNK = 4096  # label positions whose logits exist at one time: 4096 x 50257 x 4 bytes = 0.8 GB


def cross_entropy(logits_BTV: Tensor, labels_BT: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
    """Mean over label positions, or sum over ``num_items_in_batch`` where the caller spans several batches."""
    logits_NV = logits_BTV.reshape(-1, logits_BTV.shape[-1]).float()
    labels_N = labels_BT.reshape(-1)
    if num_items_in_batch is None:
        return F.cross_entropy(logits_NV, labels_N, ignore_index=IGNORED)
    return F.cross_entropy(logits_NV, labels_N, ignore_index=IGNORED, reduction="sum") / num_items_in_batch


@contextmanager
def hidden_states_instead_of_logits(output_matrix: nn.Module) -> Iterator[list[Tensor]]:
    """Inside, the output matrix is given no positions, and what it would have been given (B, T, H) is caught.

    Any head's own transform before the matrix (BERT's, RoBERTa's) still runs as the decoder defines it.
    """
    caught: list[Tensor] = []

    def catch(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        caught.append(args[0])
        return (args[0][:, :0],)

    handle = output_matrix.register_forward_pre_hook(catch)
    try:
        yield caught
    finally:
        handle.remove()


def summed_loss(
    hidden_NH: Tensor, output: nn.Module, labels_N: Tensor, label_smoothing: float
) -> tuple[Tensor, Tensor]:
    """Sums of the smoothed loss (with gradient) and of the plain negative log-likelihood (detached), in float32.

    ``output`` maps hidden states to logits. Positions are taken ``CHUNK`` at a time; with more than one chunk the
    logits are recomputed in the backward pass instead of kept.
    """

    def chunk_loss(hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = output(hidden).float()
        log_total = torch.logsumexp(logits, dim=-1)
        nll = (log_total - logits.gather(-1, labels[:, None])[:, 0]).sum()
        if not label_smoothing:
            return nll, nll.detach()
        uniform = (log_total - logits.mean(dim=-1)).sum()
        return (1 - label_smoothing) * nll + label_smoothing * uniform, nll.detach()

    if hidden_NH.shape[0] <= CHUNK:
        return chunk_loss(hidden_NH, labels_N)
    losses, nlls = zip(
        *(
            checkpoint(chunk_loss, hidden, labels, use_reentrant=False)
            for hidden, labels in zip(hidden_NH.split(CHUNK), labels_N.split(CHUNK), strict=True)
        ),
        strict=True,
    )
    return torch.stack(losses).sum(), torch.stack(nlls).sum()
