"""The few validation examples that are summarised at each validation, so that a curve of ROUGE costs little.

Rows are picked by their place in the split, not by their place among the batches: those come longest first, and the
longest documents would stand for all. They are generated together after the pass, not batch by batch.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from warmstart.collectives import of_all_ranks

ROWS = 16  # of one call of generate


class ValidationSample:
    """Collects the rows with ``index`` below ``size``, then summarises them."""

    def __init__(self, size: int, source_pad_id: int = 0) -> None:
        self.size = size
        self.source_pad_id = source_pad_id
        self._rows: list[tuple[int, Tensor, Tensor]] = []  # index, source ids and labels without padding

    def clear(self) -> None:
        """Forget the last pass."""
        self._rows = []

    def take(self, batch: dict[str, Tensor]) -> None:
        """Keep what the sample wants of a batch."""
        if self.size <= 0:
            return
        for row, index in enumerate(batch["index"].tolist()):
            if index < self.size:
                source = batch["input_ids"][row][batch["attention_mask"][row] != 0]
                labels = batch["labels"][row]
                self._rows.append((index, source, labels[labels != -100]))

    def summarize(self, model: Any, tokenizers: Any, generation: dict[str, Any]) -> list[dict[str, Any]]:
        """``index``, ``prediction`` and ``reference`` of each collected row; references are decoded labels."""
        samples: list[dict[str, Any]] = []
        rows = sorted(self._rows, key=lambda row: -len(row[1]))
        for start in range(0, len(rows), ROWS):
            part = rows[start : start + ROWS]
            sources = [source for _, source, _ in part]
            ids = model.generate(
                pad_sequence(sources, batch_first=True, padding_value=self.source_pad_id),
                attention_mask=pad_sequence([torch.ones_like(source) for source in sources], batch_first=True),
                synced_gpus=False,  # transformers sees shards; ranks have unequal samples, and parameters are gathered
                **generation,
            )
            # Without the start token: where start = end, decoding would stop before the first word.
            predictions = tokenizers.decode(ids[:, 1:])
            references = tokenizers.decode([labels.tolist() for _, _, labels in part])
            for (index, _, _), prediction, reference in zip(part, predictions, references, strict=True):
                samples.append({"index": index, "prediction": prediction, "reference": reference})
        return samples


def gathered(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The samples of all ranks, on every rank, by index."""
    everywhere = [sample for part in of_all_ranks(samples) for sample in part]
    return sorted(everywhere, key=lambda sample: sample["index"])
