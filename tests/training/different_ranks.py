"""Run by test_module.py: two processes, each with a config of its own, as a sweep's command for each rank gives."""

import os
import sys
from pathlib import Path

from tiny_training import fit

from warmstart.training.ranks import OneConfig

if __name__ == "__main__":
    one = OneConfig(f"config {os.environ.get('LOCAL_RANK', '0')}")
    fit(Path(sys.argv[1]), 2, 1, devices=2, strategy="ddp", callbacks=[one])
