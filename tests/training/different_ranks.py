"""Run by test_module.py: two processes, of which each differs in one input."""

import os
import sys
from pathlib import Path

from tiny_training import fit

from warmstart.training.distributed.same_config import SameOnAllRanks

if __name__ == "__main__":
    inputs = dict.fromkeys(("config", "tokenizers", "data"), "same")
    inputs[sys.argv[2]] = f"{sys.argv[2]} {os.environ.get('LOCAL_RANK', '0')}"
    fit(Path(sys.argv[1]), 2, 1, devices=2, strategy="ddp", callbacks=[SameOnAllRanks(**inputs)])
