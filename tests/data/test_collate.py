"""Padding and masks by length."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from warmstart.data.collate import Collator


def row(index, source, target):
    return index, np.asarray(source, np.int32), np.asarray(target, np.int32)


def test_batch():
    batch = Collator(source_pad_id=9)([row(4, [1, 2, 3], [5, 7]), row(2, [1], [6, 5, 7])])
    assert batch["input_ids"].tolist() == [[1, 2, 3], [1, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[5, 7, -100], [6, 5, 7]]
    assert batch["index"].tolist() == [4, 2]
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def test_pad_id_inside_a_text_is_neither_masked_nor_ignored():
    pad = end = 7
    batch = Collator(pad)([row(0, [7, 7, 1], [5, 7, 5, end]), row(1, [1, 1, 1, 1], [end])])
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert batch["labels"].tolist() == [[5, 7, 5, 7], [7, -100, -100, -100]]


def test_labels_of_a_pair_with_pad_equal_to_end_keep_their_end(pair):
    end, pad = pair.special_ids()["eos_token_id"], pair.special_ids()["pad_token_id"]
    assert pad == end
    targets = pair.encode_targets(["a bridge", "a longer summary of the bridge"], 20)
    labels = Collator(pair.source_pad_id)([row(i, [1], target) for i, target in enumerate(targets)])["labels"]
    for label, target in zip(labels.tolist(), targets, strict=True):
        kept = [token for token in label if token != -100]
        assert kept == target
        assert kept[-1] == end


def test_a_worker_without_shared_memory_ends_in_a_message_not_in_a_wait():
    script = [sys.executable, Path(__file__).with_name("worker_without_memory.py")]
    outcome = subprocess.run(script, capture_output=True, text=True, check=False, timeout=60)
    assert outcome.returncode == 1
    assert "has no shared memory for a batch" in outcome.stderr
    assert "Set data.batch.workers=0" in outcome.stderr
