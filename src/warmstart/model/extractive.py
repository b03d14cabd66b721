"""A model that selects sentences of its source (Liu & Lapata 2019): any encoder, and a ``SentenceSelector``.

The sources have a start token before each sentence (``data.source_form=sentences``), and the encoder's state there
stands for the sentence. Labels are those of ``TokenizerPair.encode_labels``: the summary with its end token, and after
it a 1 for each sentence of the source that belongs to the summary and a 0 for each that does not.

Shapes: B batch, S source length, T label length, N sentences, H hidden size.
"""

from collections.abc import Sequence
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig
from transformers.configuration_utils import SubConfigSpec
from transformers.modeling_outputs import Seq2SeqLMOutput

from warmstart.model.configuration import EncoderDecoderConfig
from warmstart.model.loss import IGNORED, TrainingLoss
from warmstart.model.modeling import EncoderDecoderModel
from warmstart.model.padding import infer_source_mask
from warmstart.model.segments import START
from warmstart.model.selector import SelectorConfig
from warmstart.model.soft_targets import SoftTargets


@strict
class ExtractiveConfig(EncoderDecoderConfig):
    """Configuration of ``ExtractiveModel``: that of a joint model whose decoder is a sentence selector.

    Args:
        sentence_end_id: Id after each sentence of a source.
        sentence_separator_id: Id between the sentences of a summary.
    """

    model_type = "warmstart-extractive"
    sub_configs_defaults = {  # noqa: RUF012 - the base class' protocol
        "encoder": SubConfigSpec(config_class=AutoConfig, model_type="bert"),
        "decoder": SubConfigSpec(config_class=AutoConfig, model_type=SelectorConfig.model_type),
    }

    sentence_end_id: int = -1
    sentence_separator_id: int = -1


class ExtractiveModel(EncoderDecoderModel):
    """An encoder and a selector of sentences, trained and used like ``EncoderDecoderModel``.

    ``generate`` returns the tokens of the selected sentences. The search has no effect, except that blocked n-grams of
    words (``NoRepeatedWordNGrams``) exclude a sentence that shares one with a sentence before it.
    """

    config_class = ExtractiveConfig
    config: ExtractiveConfig
    labels_are_of_source = True

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput:
        """Score the sentences of sources.

        Args:
            input_ids: (B, S) source ids.
            attention_mask: (B, S), 0 at padding. Default: inferred from the pad id.
            labels: (B, T), see the module. With them, the output has the mean loss per sentence.
            **kwargs: Not used.

        Returns:
            ``logits`` (B, N), minus infinity where a source has no sentence.
        """
        scores_BN, present_BN = self._scores(input_ids, attention_mask)
        loss = None if labels is None else self._loss(scores_BN, present_BN, labels).mean
        return Seq2SeqLMOutput(loss=loss, logits=scores_BN.masked_fill(~present_BN, float("-inf")))

    def training_loss(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        *,
        label_smoothing: float = 0.0,
        buckets: Sequence[Sequence[int]] | None = None,
        soft_targets: SoftTargets | None = None,
    ) -> TrainingLoss:
        """Compute the binary cross-entropy of the sentence labels, summed over sentences; ``tokens`` counts them.

        Raises:
            ValueError: ``soft_targets`` is given, but this model selects sentences.
        """
        if soft_targets is not None:
            raise ValueError("A model that selects sentences has no logits of tokens. Leave soft_targets out.")
        return self._loss(*self._scores(input_ids, attention_mask), labels)

    @torch.no_grad()
    def likelihood(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, *, read_source: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Return the summed loss of each example (B,) in nats, and its number of sentences (B,).

        Raises:
            ValueError: ``read_source`` is False, but there are no sentences to score without a source.
        """
        if not read_source:
            raise ValueError("Labels of sentences have no likelihood without their source. Leave read_source out.")
        scores_BN, present_BN = self._scores(input_ids, attention_mask)
        loss_BN, counted_BN = self._losses(scores_BN, present_BN, labels)
        return (loss_BN * counted_BN).sum(dim=1), counted_BN.sum(dim=1)

    @torch.no_grad()
    def generate(self, inputs: Tensor | None = None, generation_config: Any = None, **kwargs: Any) -> Tensor:
        """Select the sentences with the highest scores.

        Args:
            inputs: (B, S) source ids.
            generation_config: Not used.
            **kwargs: ``attention_mask`` (B, S), and ``logits_processor`` for blocked n-grams of words.

        Returns:
            Ids (B, T): the start token, the selected sentences in the order of their scores, and the end token.
        """
        ids_BS: Tensor = kwargs["input_ids"] if inputs is None else inputs
        scores_BN, present_BN = self._scores(ids_BS, kwargs.get("attention_mask"))
        blockers = [one for one in kwargs.get("logits_processor") or () if hasattr(one, "ngrams")]
        rows = [
            self._selected(ids.tolist(), scores[present].argsort(descending=True).tolist(), blockers)
            for ids, scores, present in zip(ids_BS, scores_BN, present_BN, strict=True)
        ]
        pad = self._special_id("pad_token_id")
        return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=pad).to(ids_BS.device)

    def generate_alone(self, **kwargs: Any) -> Tensor:
        """Return a summary (1, 2) without sentences: there is no source to select from."""
        return torch.tensor([[self._special_id("decoder_start_token_id"), self._special_id("eos_token_id")]])

    def _scores(self, ids_BS: Tensor, mask_BS: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the scores of the sentences (B, N) in float32, and which of them exist (B, N)."""
        if mask_BS is None:
            mask_BS = infer_source_mask(ids_BS, self.config.encoder)
            mask_BS = torch.ones_like(ids_BS) if mask_BS is None else mask_BS
        states_BSH = self._project(self._encode(ids_BS, mask_BS)[0])
        starts_BS = (ids_BS == getattr(self.config.encoder, START)) & (mask_BS != 0)
        count = max(int(starts_BS.sum(dim=1).max()), 1)
        places_BN = starts_BS.int().argsort(dim=1, descending=True, stable=True)[:, :count]
        present_BN = starts_BS.gather(1, places_BN)
        states_BNH = states_BSH.take_along_dim(places_BN[..., None], dim=1)
        return self.decoder(states_BNH, present_BN).float(), present_BN

    def _losses(self, scores_BN: Tensor, present_BN: Tensor, labels_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of each sentence (B, N), and which ones count: those with a label."""
        rows = []
        for labels in labels_BT.tolist():
            labels = labels[labels.index(self.config.eos_token_id) + 1 :]
            rows.append(torch.tensor([label for label in labels if label != IGNORED], dtype=torch.long))
        wanted_BN = pad_sequence(rows, batch_first=True, padding_value=IGNORED).to(scores_BN.device)
        count = scores_BN.shape[1]
        wanted_BN = torch.nn.functional.pad(wanted_BN, (0, max(count - wanted_BN.shape[1], 0)), value=IGNORED)
        wanted_BN = wanted_BN[:, :count]
        counted_BN = present_BN & (wanted_BN != IGNORED)
        targets_BN = wanted_BN.clamp(min=0).float()
        return binary_cross_entropy_with_logits(scores_BN, targets_BN, reduction="none"), counted_BN

    def _loss(self, scores_BN: Tensor, present_BN: Tensor, labels_BT: Tensor) -> TrainingLoss:
        loss_BN, counted_BN = self._losses(scores_BN, present_BN, labels_BT)
        summed = (loss_BN * counted_BN).sum()
        return TrainingLoss(summed, summed.detach(), counted_BN.sum())

    def _selected(self, ids: list[int], order: list[int], blockers: list[Any]) -> list[int]:
        """Return the ids of the best sentences of one source, with start, separators and end."""
        start, most = getattr(self.config.encoder, START), self.config.decoder.sentences
        begins = [i for i, token in enumerate(ids) if token == start]
        row: list[int] = []
        seen: list[set[tuple[str, ...]]] = [set() for _ in blockers]
        taken = 0
        for number in order:
            sentence = ids[begins[number] + 1 :]
            sentence = sentence[: sentence.index(self.config.sentence_end_id)]
            ngrams = [blocker.ngrams(blocker.words(sentence)) for blocker in blockers]
            if any(own & before for own, before in zip(ngrams, seen, strict=True)):
                continue
            seen = [own | before for own, before in zip(ngrams, seen, strict=True)]
            row += [self.config.sentence_separator_id, *sentence] if taken else sentence
            taken += 1
            if taken == most:
                break
        return [self._special_id("decoder_start_token_id"), *row, self._special_id("eos_token_id")]


AutoConfig.register(ExtractiveConfig.model_type, ExtractiveConfig, exist_ok=True)
