"""Two ranks train as one process does, however they were started."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
RUN = Path(__file__).parents[2] / "run.py"
FIT = (
    *("debug=tiny", "encoder=bert", "decoder=bert", "trainer.precision=32-true", "bridge.dropout=0"),
    *("data.batch.max_tokens=320", "trainer.max_epochs=20", "trainer.max_steps=20"),
)
RANKS = ("trainer.devices=2", "trainer.strategy=ddp")


def left_by(folder: Path) -> tuple[list[float], dict]:
    with (folder / "metrics.csv").open(newline="") as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
    return losses, json.loads((folder / "result.json").read_text())


def test_the_loss_curve_of_two_ranks_is_that_of_one_process(run_py, tmp_path):
    for name, words in (("one", ("trainer.accumulate=2",)), ("two", RANKS)):
        outcome = run_py(*FIT, *words, f"name={name}", cwd=tmp_path)
        assert outcome.returncode == 0, outcome.stderr[-3000:]
    (one, of_one), (two, of_two) = (left_by(tmp_path / "runs" / name) for name in ("one", "two"))
    assert len(one) == len(two) == 20
    # 1e-6 of the loss, which is near 7.
    assert two == pytest.approx(one, rel=1e-6)
    assert one[-1] < one[0]
    assert of_two["metrics"]["test/nll"] == pytest.approx(of_one["metrics"]["test/nll"], rel=1e-5)
    assert of_two["metrics"]["test/examples"] == of_one["metrics"]["test/examples"]


def test_torchrun_starts_the_same_fit(run_py, tmp_path):
    outcome = run_py(*FIT, *RANKS, "name=two", cwd=tmp_path)
    assert outcome.returncode == 0, outcome.stderr[-3000:]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_addr=127.0.0.1"]
    command = [*torchrun, "--master_port=29577", RUN, *FIT, *RANKS]
    options = {"cwd": tmp_path, "capture_output": True, "text": True, "check": False, "timeout": 300}
    started = subprocess.run([*command, "name=torchrun"], **options, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert started.returncode == 0, started.stderr[-3000:]
    (two, of_two), (found, result) = (left_by(tmp_path / "runs" / name) for name in ("two", "torchrun"))
    assert found == two
    assert result["metrics"] == of_two["metrics"]

    nameless = subprocess.run(command, **options)
    assert nameless.returncode != 0
    assert "name= is needed" in nameless.stderr
