"""Run by test_resumed_otherwise.py: two ranks resume a checkpoint of one process and record their examples."""

import sys
from pathlib import Path

import torch
from test_resumed_otherwise import go_on

if __name__ == "__main__":
    folder, ckpt, max_tokens = sys.argv[1:]
    seen, trainer = go_on(Path(folder), ckpt, max_tokens=int(max_tokens), devices=2, strategy="ddp")
    torch.save(seen.batches, Path(folder) / f"rank{trainer.global_rank}.pt")
