"""From rows of ids to one batch of tensors, padded to the longest row on the right."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import get_worker_info

from warmstart.data.target_buckets import parts_of
from warmstart.errors import UserError

IGNORED = -100


class Collator:
    """``input_ids``, ``attention_mask``, ``labels`` and ``index`` (the rows' places in the split).

    Mask and ignored labels follow from the rows' lengths, never from comparing with the pad id: where pad = end, as in
    GPT-2's and Llama's tokenizers, that comparison would erase the end token from the labels.

    With ``in_parts``, as training has it, rows are in the order of their labels' lengths, and ``parts`` says in which
    parts they are decoded: numbers and no tensor, so that nobody waits for a device to read them.
    """

    def __init__(self, source_pad_id: int, *, in_parts: bool = False) -> None:
        self.source_pad_id = source_pad_id
        self.in_parts = in_parts

    def __call__(self, rows: Sequence[tuple[int, np.ndarray, np.ndarray]]) -> dict[str, Any]:
        if self.in_parts:
            rows = sorted(rows, key=lambda row: len(row[2]))
        sources, targets = [row[1] for row in rows], [row[2] for row in rows]
        lengths = torch.tensor([len(source) for source in sources])
        input_ids = _padded(sources, self.source_pad_id)
        batch: dict[str, Any] = {
            "input_ids": input_ids,
            "attention_mask": (torch.arange(input_ids.shape[1]) < lengths[:, None]).long(),
            "labels": _padded(targets, IGNORED),
            "index": torch.tensor([row[0] for row in rows]),
        }
        if self.in_parts:
            batch["parts"] = parts_of(input_ids.shape[1], [len(target) for target in targets])
        if get_worker_info() is not None:
            _share(batch)
        return batch


def _share(batch: dict[str, Any]) -> None:
    """Move a worker's tensors to shared memory here.

    Where the worker's queue does it, an error stays in a thread of the worker, and the fit waits forever.
    """
    for value in batch.values():
        if isinstance(value, torch.Tensor):
            try:
                value.share_memory_()
            except (RuntimeError, OSError) as error:
                raise UserError(
                    f"A worker of data.batch.workers found no shared memory for a batch: {str(error).splitlines()[0]} "
                    "Set data.batch.workers=0, or give the machine or container a larger /dev/shm."
                ) from error


def _padded(rows: Sequence[np.ndarray], value: int) -> torch.Tensor:
    padded = np.full((len(rows), max(map(len, rows))), value, dtype=np.int64)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    return torch.from_numpy(padded)
