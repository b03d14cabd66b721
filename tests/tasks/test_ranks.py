"""Two ranks train as one process does, however they were started."""

import csv
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from srun import srun_of_two_tasks

from warmstart.errors import UserError
from warmstart.tasks import evaluate

pytestmark = pytest.mark.slow
RUN = Path(__file__).parents[2] / "run.py"
FIT = (
    *("debug=tiny", "encoder=bert", "decoder=bert", "trainer.precision=32-true", "bridge.dropout=0"),
    *("data.batch.max_tokens=320", "trainer.max_epochs=20", "trainer.max_steps=20"),
)
RANKS = ("trainer.devices=2", "trainer.strategy=ddp")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")


def result_in(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def left_by(folder: Path) -> tuple[list[float], dict]:
    with (folder / "metrics.csv").open(newline="") as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
    return losses, result_in(folder)


def by_torchrun(*words: str, cwd: Path, script: Path = RUN) -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    options = {"cwd": cwd, "env": environment, "capture_output": True, "text": True, "check": False, "timeout": 300}
    return subprocess.run([*TORCHRUN, script, *words], **options)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_loss_curve_of_two_ranks_is_that_of_one_process(accumulate, run_py, tmp_path):
    for name in ("one", "ddp", "fsdp"):
        ranks = ("trainer.devices=2", f"trainer.strategy={name}", f"trainer.accumulate={accumulate}")
        words = (f"trainer.accumulate={2 * accumulate}",) if name == "one" else ranks
        outcome = run_py(*FIT, *words, f"name={name}", cwd=tmp_path)
        assert outcome.returncode == 0, outcome.stderr[-3000:]
    one, of_one = left_by(tmp_path / "runs" / "one")
    assert len(one) == 20
    assert one[-1] < one[0]
    for name in ("ddp", "fsdp"):
        two, of_two = left_by(tmp_path / "runs" / name)
        # 1e-6 of the loss, which is near 7.
        assert two == pytest.approx(one, rel=1e-6)
        assert of_two["metrics"]["test/nll"] == pytest.approx(of_one["metrics"]["test/nll"], rel=1e-5)
        assert of_two["metrics"]["test/examples"] == of_one["metrics"]["test/examples"]


def test_torchrun_starts_the_same_fit(run_py, tmp_path):
    outcome = run_py(*FIT, *RANKS, "name=two", cwd=tmp_path)
    assert outcome.returncode == 0, outcome.stderr[-3000:]
    started = by_torchrun(*FIT, *RANKS, "name=torchrun", cwd=tmp_path)
    assert started.returncode == 0, started.stderr[-3000:]
    (two, of_two), (found, result) = (left_by(tmp_path / "runs" / name) for name in ("two", "torchrun"))
    assert found == two
    assert result["metrics"] == of_two["metrics"]

    nameless = by_torchrun(*FIT, *RANKS, cwd=tmp_path)
    assert nameless.returncode != 0
    assert "each rank would make its own folder" in nameless.stderr


def test_evaluation_over_ranks_is_that_of_one_process(run_py, tmp_path):
    words = (*FIT, "trainer.devices=2", "trainer.strategy=fsdp", "generation.do_sample=true")
    cache = f"data.cache_dir={tmp_path / 'cache'}"
    outcome = run_py(*words, "data.evaluation_max_tokens=160", cache, "name=fit", cwd=tmp_path)
    assert outcome.returncode == 0, outcome.stderr[-3000:]
    evaluate = ("task=evaluate", "ckpt=runs/fit", cache)
    one = run_py(*evaluate, "name=one", cwd=tmp_path)
    assert one.returncode == 0, one.stderr[-3000:]

    killed = by_torchrun(
        *evaluate, "name=killed", cwd=tmp_path, script=Path(__file__).with_name("killed_evaluation.py")
    )
    assert killed.returncode != 0
    assert not (tmp_path / "runs" / "killed" / "result.json").exists()
    again = by_torchrun(*evaluate, "name=two", cwd=tmp_path)
    assert again.returncode == 0, again.stderr[-3000:]
    started = run_py(*evaluate, *RANKS, "name=started", cwd=tmp_path)
    assert started.returncode == 0, started.stderr[-3000:]
    assert "2 processes" in started.stderr

    by_srun = f"{srun_of_two_tasks()}\nsrun {shlex.join([sys.executable, str(RUN), *evaluate, 'name=srun'])}\n"
    of_srun = subprocess.run(["bash"], input=by_srun, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert of_srun.returncode == 0, of_srun.stderr[-3000:]
    assert "2 processes" in of_srun.stderr

    results = {name: result_in(tmp_path / "runs" / name) for name in ("fit", "two", "started", "srun")}
    expected = result_in(tmp_path / "runs" / "one")
    texts = (tmp_path / "runs" / "one" / "predictions.jsonl").read_text()
    assert expected["summaries"] == {"generated": 8, "from_an_interrupted_run": 0}
    assert results["two"]["summaries"]["from_an_interrupted_run"] > 0
    for name, result in results.items():
        assert sum(result["summaries"].values()) == 8
        assert (tmp_path / "runs" / name / "predictions.jsonl").read_text() == texts
        for part in ("metrics", "baselines", "controls"):
            assert result[part] == expected[part], (name, part)
    assert not list((tmp_path / "cache" / "summaries").iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for GPUs that are not there")
def test_ranks_that_cannot_be_had_are_said_before_anything_is_evaluated(settings_of, monkeypatch):
    words = ["trainer=ddp"]
    monkeypatch.setattr(HydraConfig.instance(), "cfg", OmegaConf.create({"hydra": {"overrides": {"task": words}}}))
    with pytest.raises(UserError, match=r"accelerator=gpu, devices=2 is not available .* evaluate in one process"):
        evaluate.run(settings_of("debug=tiny", *words, "trainer.accelerator=gpu", "ckpt=nowhere"), Path("nowhere"))


def test_a_rank_that_is_stopped_ends_the_job_with_its_number(tmp_path):
    words = (*FIT, *RANKS, "trainer.save_every=2", "trainer.timeout_minutes=0.1", "name=s")
    script = [sys.executable, Path(__file__).with_name("stopped_rank.py"), *words]
    stopped = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert stopped.returncode == 1, stopped.stderr[-3000:]
    assert "warmstart: Rank 1 of this job has not responded for trainer.timeout_minutes=0.1" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert result_in(tmp_path / "runs" / "s")["status"] == "failed"
    assert (tmp_path / "runs" / "s" / "checkpoints" / "last.ckpt").exists()


def test_a_rank_that_is_killed_fails_its_job_alone_and_the_same_command_goes_on(run_py, tmp_path):
    words = (*FIT, *RANKS, "trainer.max_steps=8", "trainer.save_every=2", "optim.new_rate=0.001,0.002", "name=s")
    killed = run_py("-m", *words, cwd=tmp_path, script=Path(__file__).with_name("killed_rank.py"))
    assert killed.returncode == 1, killed.stderr[-3000:]
    assert "2 jobs, 1 failed" in killed.stdout
    assert "Rank 1 of this job was ended by SIGKILL" in killed.stdout
    assert "Traceback" not in killed.stderr
    first = {file.parent: result_in(file.parent) for file in tmp_path.glob("runs/multirun/s/*/result.json")}
    assert sorted(result["status"] for result in first.values()) == ["complete", "failed"]

    again = run_py("-m", *words, cwd=tmp_path)
    assert again.returncode == 0, again.stderr[-3000:]
    assert "2 jobs, 0 failed" in again.stdout
    for job, result in first.items():
        if result["status"] == "complete":
            assert result_in(job) == result
        else:
            assert result_in(job)["resumed"]
            rate = "optim.new_rate=" + str(result["config"]["optim"]["new_rate"])
            whole = run_py(*words[:-2], rate, "name=whole", cwd=tmp_path)
            assert whole.returncode == 0, whole.stderr[-3000:]
            assert left_by(job)[0] == left_by(tmp_path / "runs" / "whole")[0]
            assert result_in(job)["metrics"] == result_in(tmp_path / "runs" / "whole")["metrics"]


def test_further_ranks_of_a_job_that_a_sweeps_file_names_are_no_sweep(run_py, tmp_path):
    one = ("sweep=matrix", "encoder=bert", "decoder=gpt2", "seed=1", "trainer.max_steps=2")
    outcome = run_py("-m", *[word for word in FIT if not word.startswith("trainer.max")], *RANKS, *one, cwd=tmp_path)
    assert outcome.returncode == 0, outcome.stderr[-3000:]
    assert "1 jobs, 0 failed" in outcome.stdout
