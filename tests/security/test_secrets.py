"""Keys of the environment reach no file that a run leaves."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parents[2] / "run.py"
CANARY = "f00dcafe" * 5  # forty characters, as a real key has
KEYS = ("WANDB_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


@pytest.mark.slow
def test_no_key_is_in_what_a_run_leaves_or_says(tmp_path):
    environment = os.environ | dict.fromkeys(KEYS, CANARY) | {"WANDB_MODE": "offline"}
    said = b""
    for words in (("logger=wandb", "name=run"), ("task=export", "ckpt=runs/run"), ("task=report", "runs=[runs/run]")):
        command = [sys.executable, RUN, *words, *([] if "ckpt=runs/run" in words else ["debug=tiny"])]
        outcome = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False, timeout=200)
        assert outcome.returncode == 0, outcome.stderr[-3000:]
        said += outcome.stdout + outcome.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    assert any(path.suffix == ".ckpt" for path in files)
    assert any(path.name == "report.html" for path in files)
    assert [path for path in files if CANARY.encode() in path.read_bytes()] == []
    assert CANARY.encode() not in said
