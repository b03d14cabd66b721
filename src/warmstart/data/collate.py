"""From rows of ids to one batch of tensors, padded to the longest row on the right."""

from collections.abc import Sequence

import numpy as np
import torch

IGNORED = -100


class Collator:
    """``input_ids``, ``attention_mask``, ``labels`` and ``index`` (the rows' places in the split).

    Mask and ignored labels follow from the rows' lengths, never from comparing with the pad id: where pad = end, as in
    GPT-2's and Llama's tokenizers, that comparison would erase the end token from the labels.
    """

    def __init__(self, source_pad_id: int) -> None:
        self.source_pad_id = source_pad_id

    def __call__(self, rows: Sequence[tuple[int, np.ndarray, np.ndarray]]) -> dict[str, torch.Tensor]:
        sources, targets = [row[1] for row in rows], [row[2] for row in rows]
        lengths = torch.tensor([len(source) for source in sources])
        input_ids = _padded(sources, self.source_pad_id)
        return {
            "input_ids": input_ids,
            "attention_mask": (torch.arange(input_ids.shape[1]) < lengths[:, None]).long(),
            "labels": _padded(targets, IGNORED),
            "index": torch.tensor([row[0] for row in rows]),
        }


def _padded(rows: Sequence[np.ndarray], value: int) -> torch.Tensor:
    padded = np.full((len(rows), max(map(len, rows))), value, dtype=np.int64)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    return torch.from_numpy(padded)
