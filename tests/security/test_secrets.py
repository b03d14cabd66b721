"""Keys in the environment are in nothing that a run leaves behind, W&B's own files among it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CANARIES = {
    "WANDB_API_KEY": "canaryw" + "0123456789abcdef" * 2 + "f",
    "HF_TOKEN": "hf_canaryhABCDEFGHIJKLMNOPQRSTU",
    "HUGGING_FACE_HUB_TOKEN": "hf_canarygABCDEFGHIJKLMNOPQRSTU",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [[], ["-m", "seed=1,2"], ["data.summary_column=no_such"]], ids=["run", "sweep", "failure"]
)
def test_canaries(words, tmp_path):
    if "data.summary_column=no_such" in words:
        (tmp_path / "x.jsonl").write_text('{"document": "a"}\n')
        words = [*words, "data=files", "data.path=x.jsonl"]
    environment = os.environ | CANARIES | {"WANDB_MODE": "offline", "WARMSTART_CACHE": str(tmp_path / "cache")}
    named = [] if words else ["name=run"]
    command = [sys.executable, ROOT / "run.py", *words, *named, "debug=tiny", "logger=wandb"]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False, timeout=300)
    assert ended.returncode == (2 if "data=files" in words else 0), ended.stderr.decode()[-2000:]
    if not words:
        for later in (["task=export", "ckpt=runs/run"], ["task=report", "runs=[runs/run]"]):
            after = subprocess.run(
                [*command[:2], *later], cwd=tmp_path, env=environment, capture_output=True, check=False
            )
            assert after.returncode == 0, after.stderr.decode()[-2000:]
            ended.stderr += after.stdout + after.stderr
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert any(path.suffix == ".wandb" for path in files)
        assert {"result.json", "best.ckpt", "overrides.yaml", "README.md", "report.html"} <= {
            path.name for path in files
        }
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    left = {str(path.relative_to(tmp_path)): path.read_bytes() for path in files}
    left |= {"stdout": ended.stdout, "stderr": ended.stderr}
    for name, content in left.items():
        for key, canary in CANARIES.items():
            assert canary.encode() not in content, f"{key} is in {name}"
