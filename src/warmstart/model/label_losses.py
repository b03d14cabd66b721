"""Losses at the label positions, as training and evaluation need them: without the full logits, by sum and by example.

    model.training_loss(input_ids, attention_mask, labels).mean.backward()

Shapes: B batch, S source length, T target length, N label positions.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from warmstart import cpu
from warmstart.model.loss import IGNORED, Head, judge_head, summed_loss
from warmstart.model.padding import decoder_positions, mask_of_shifted


class TrainingLoss(NamedTuple):
    """What :meth:`LabelLosses.training_loss` returns: float32 scalars, and a count."""

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


class LabelLosses:
    """What ``EncoderDecoderModel`` offers beside the documented ``forward(labels=...)``, which returns logits."""

    config: Any
    encoder: Any
    decoder: Any
    get_output_embeddings: Any
    prepare_decoder_input_ids_from_labels: Any
    _encode: Any
    _project: Any
    _decode: Any
    _head: Head | None
    _drops_lean: bool
    device: Any
    training: bool

    def training_loss(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        *,
        label_smoothing: float = 0.0,
        parts: Sequence[Sequence[int]] | None = None,
    ) -> TrainingLoss:
        """Compute the loss for a training step, faster and in less memory than ``forward(labels=...)``.

        Only the label positions go through the LM head, so the full logits never exist. In training mode on a CPU the
        first call applies :func:`warmstart.cpu.accelerate`: dropout and attention keep no masks and no attention
        weights, and dropout draws other numbers than transformers' class from the same seed.

        Args:
            input_ids, attention_mask: (B, S). labels: (B, T) with -100 past each row's length.
            label_smoothing: share of the target distribution spread evenly over the vocabulary.
            parts: rows and longest target of each part of the batch, in the order of its rows. Each is decoded by
                itself, without the padding that another part needs; left out, all rows are decoded at once.

        Returns:
            ``summed``, ``nll`` and ``tokens`` as a tuple, with ``mean`` as the loss of a step of one batch.
        """
        if self.training and self.device.type == "cpu" and not self._drops_lean:
            self._drops_lean = True  # once: an attention that is chosen later stays
            cpu.accelerate(self)
        loss, nll_N = self._label_losses(input_ids, attention_mask, labels, label_smoothing, parts=parts)
        return TrainingLoss(loss, nll_N.sum(), (labels != IGNORED).sum())

    @torch.no_grad()
    def likelihood(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, *, read_source: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Each row's summed negative log-likelihood in nats (B,), and its number of label positions (B,).

        With ``read_source=False`` the decoder stands alone: its cross-attention is skipped, as if there were none.
        """
        _, nll_N = self._label_losses(input_ids, attention_mask, labels, 0.0, read_source=read_source)
        is_label_BT = labels != IGNORED
        row_N = is_label_BT.nonzero()[:, 0]
        return nll_N.new_zeros(len(labels)).index_add(0, row_N, nll_N), is_label_BT.sum(dim=1)

    def _label_losses(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        label_smoothing: float,
        *,
        read_source: bool = True,
        parts: Sequence[Sequence[int]] | None = None,
    ) -> tuple[Tensor, Tensor]:
        rows, lengths = zip(*(parts or [labels.shape]), strict=True)
        sources: Any = [(None, None)] * len(rows)
        if read_source:
            states_BSH = self._project(self._encode(input_ids, attention_mask)[0])
            sources = zip(states_BSH.split(rows), attention_mask.split(rows), strict=True)
        decoded = []
        for source, labels_BT, length in zip(sources, labels.split(rows), lengths, strict=True):
            labels_BT = labels_BT[:, :length]
            ids_BT, mask_BT = self.prepare_decoder_input_ids_from_labels(labels_BT), mask_of_shifted(labels_BT)
            decode = partial(
                self._decode,
                *source,
                input_ids=ids_BT,
                attention_mask=mask_BT,
                use_cache=False,
                **decoder_positions(self.config, ids_BT, mask_BT),
            )
            decoded.append((decode, labels_BT))
        if self._head is None:
            self._head = self._judge_head(self.prepare_decoder_input_ids_from_labels(labels[:1, :1]))
        return summed_loss(decoded, self.get_output_embeddings(), self._head, label_smoothing)

    @torch.no_grad()
    def _judge_head(self, ids_BT: Tensor) -> Head:
        """Which way from hidden states to logits this decoder has, tried on one token by itself."""
        devices = [ids_BT.device] if ids_BT.device.type == "cuda" else []
        with torch.random.fork_rng(devices):  # a resumed run asks again and must draw the same dropout
            return judge_head(
                partial(self.decoder, input_ids=ids_BT, use_cache=False, return_dict=True), self.get_output_embeddings()
            )
