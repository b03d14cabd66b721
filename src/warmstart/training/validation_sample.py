"""The few validation examples that are summarised at each validation, so that a ROUGE curve costs little.

The examples are the first ones of the split, not those of the first batches: batches come longest first, so the sample
would only contain the longest documents. Their summaries are generated after the validation pass, in larger batches.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from warmstart.collectives import of_all_ranks

GENERATION_BATCH = 16  # examples


class ValidationSample:
    """Collects the examples with an ``index`` below ``size``, then summarises them.

    Args:
        size: number of examples over all ranks; 0 collects none.
        source_pad_id: id that pads sources.
    """

    def __init__(self, size: int, source_pad_id: int = 0) -> None:
        """Start with no examples."""
        self.size = size
        self.source_pad_id = source_pad_id
        self._examples: list[tuple[int, Tensor, Tensor]] = []  # index, source ids and labels without padding

    def clear(self) -> None:
        """Drop the examples of the last validation pass."""
        self._examples = []

    def take(self, batch: dict[str, Tensor]) -> None:
        """Collect the batch's examples that belong to the sample."""
        if self.size <= 0:
            return
        for row, index in enumerate(batch["index"].tolist()):
            if index < self.size:
                source = batch["input_ids"][row][batch["attention_mask"][row] != 0]
                labels = batch["labels"][row]
                self._examples.append((index, source, labels[labels != -100]))

    def summarize(self, model: Any, tokenizers: Any, generation: dict[str, Any]) -> list[dict[str, Any]]:
        """Generate a summary for each collected example.

        Args:
            model: an ``EncoderDecoderModel``.
            tokenizers: the pair whose target tokenizer decodes.
            generation: keyword arguments of ``model.generate``.

        Returns:
            ``index``, ``prediction`` and ``reference`` of each example; a reference is its decoded labels.
        """
        samples: list[dict[str, Any]] = []
        examples = sorted(self._examples, key=lambda example: -len(example[1]))
        for start in range(0, len(examples), GENERATION_BATCH):
            batch = examples[start : start + GENERATION_BATCH]
            sources = [source for _, source, _ in batch]
            ids = model.generate(
                pad_sequence(sources, batch_first=True, padding_value=self.source_pad_id),
                attention_mask=pad_sequence([torch.ones_like(source) for source in sources], batch_first=True),
                # transformers would turn it on under FSDP. Parameters are gathered here, so ranks need not keep step.
                synced_gpus=False,
                **generation,
            )
            # Drop the start token: if it is also the end token, decoding would stop before the first word.
            predictions = tokenizers.decode(ids[:, 1:])
            references = tokenizers.decode([labels.tolist() for _, _, labels in batch])
            for (index, _, _), prediction, reference in zip(batch, predictions, references, strict=True):
                samples.append({"index": index, "prediction": prediction, "reference": reference})
        return samples


def gather_samples(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the samples of all ranks on every rank, ordered by index."""
    everywhere = [sample for own in of_all_ranks(samples) for sample in own]
    return sorted(everywhere, key=lambda sample: sample["index"])
