"""Collate tokenized examples into one batch of tensors, padded on the right to the longest."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import get_worker_info

from warmstart.data.target_buckets import target_buckets
from warmstart.data.tokenization.source_layout import SourceLayout
from warmstart.errors import UserError

IGNORED = -100


class Collator:
    """Pads and stacks tokenized examples.

    The mask and the ignored labels follow from the lengths, never from comparing with the pad id. If the pad id is the
    end id, as in GPT-2's and Llama's tokenizers, that comparison would erase the end token from the labels.

    Args:
        source_pad_id: The id that pads the sources.
        bucket_targets: Whether to sort the examples by their number of labels and add their target-length buckets,
            as training does.
        layout: How the sources are cut into windows; None if each is one window.
    """

    def __init__(self, source_pad_id: int, *, bucket_targets: bool = False, layout: SourceLayout | None = None) -> None:
        self.source_pad_id = source_pad_id
        self.bucket_targets = bucket_targets
        self.layout = layout if layout is not None and layout.windows > 1 else None

    def __call__(self, examples: Sequence[tuple[int, np.ndarray, np.ndarray]]) -> dict[str, Any]:
        """Make a batch of B examples.

        Args:
            examples: Index in the split, source ids and label ids of each example.

        Returns:
            ``input_ids`` (B, S), ``attention_mask`` (B, S), ``labels`` (B, T) and ``index`` (B,). If a source has
            several windows, ``input_ids`` and ``attention_mask`` are (B, windows, S), and windows that a source does
            not have are masked. With ``bucket_targets`` also ``buckets``, the size and longest target of each
            target-length bucket: plain numbers, as reading them from a tensor would wait for the device.
        """
        if self.bucket_targets:
            examples = sorted(examples, key=lambda example: len(example[2]))
        sources, targets = [example[1] for example in examples], [example[2] for example in examples]
        input_ids, attention_mask = self.pad_sources(sources)
        batch: dict[str, Any] = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "labels": _padded(targets, IGNORED),
            "index": torch.tensor([example[0] for example in examples]),
        }
        if self.bucket_targets:
            batch["buckets"] = target_buckets(input_ids[0].numel(), [len(target) for target in targets])
        if get_worker_info() is not None:
            _share(batch)
        return batch

    def pad_sources(self, sources: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the ids and the mask of sources, (B, S) or with several windows (B, windows, S)."""
        rows = [[source] for source in sources] if self.layout is None else list(map(self.layout.windows_of, sources))
        count = max(map(len, rows))
        nothing = np.array([], dtype=np.int64)
        windows = [row[n] if n < len(row) else nothing for row in rows for n in range(count)]
        lengths = torch.tensor([len(window) for window in windows])
        input_ids = _padded(windows, self.source_pad_id)
        mask = (torch.arange(input_ids.shape[1]) < lengths[:, None]).long()
        if count == 1:
            return input_ids, mask
        return input_ids.view(len(rows), count, -1), mask.view(len(rows), count, -1)


def _share(batch: dict[str, Any]) -> None:
    """Move a worker's tensors to shared memory.

    If the worker's queue did it, an error would stay in a thread of the worker, and the fit would wait forever.
    """
    for value in batch.values():
        if isinstance(value, torch.Tensor):
            try:
                value.share_memory_()
            except (RuntimeError, OSError) as error:
                raise UserError(
                    f"A worker of data.batch.workers has no shared memory for a batch: {str(error).splitlines()[0]} "
                    "Set data.batch.workers=0, or give the machine or container a larger /dev/shm."
                ) from error


def _padded(rows: Sequence[np.ndarray], value: int) -> torch.Tensor:
    padded = np.full((len(rows), max(map(len, rows))), value, dtype=np.int64)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    return torch.from_numpy(padded)
