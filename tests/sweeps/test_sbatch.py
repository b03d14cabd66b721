"""The batch script requests a task for each device, and its command is the configured fit."""

import json
import os
import shlex
import subprocess
import sys

import pytest
from srun import srun_of_two_tasks


def test_the_script_runs_this_fit_and_requeues_it(run_py, tmp_path):
    words = ("debug=tiny", "name=mine", "trainer.devices=8", "trainer.strategy=ddp", "trainer.accelerator=gpu")
    outcome = run_py("task=sbatch", *words, "trainer.nodes=2", cwd=tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    lines = outcome.stdout.splitlines()
    wanted = ("nodes=2", "ntasks-per-node=8", "gpus-per-node=8", "signal=USR1@120", "requeue", "job-name=mine")
    assert {f"#SBATCH --{option}" for option in wanted} <= set(lines)
    srun, _, script, *found = shlex.split(lines[-1])
    assert (srun, script[-6:]) == ("srun", "run.py")
    assert found == [*words, "trainer.nodes=2"]


def test_it_needs_a_name_and_a_valid_config(run_py, tmp_path):
    for words, said in (
        ((), "needs name="),
        (("name=x", "ckpt=new"), "would start over each time"),
        (("name=x", "optim.encoder_rate=-1"), "from 0 to 1"),
    ):
        outcome = run_py("task=sbatch", "debug=tiny", *words, cwd=tmp_path)
        assert outcome.returncode == 2
        assert said in outcome.stderr


def test_options_are_checked_after_the_recipe_of_the_texts(run_py, tmp_path):
    rows = [json.dumps({"document": f"Ana has {i} boats.", "summary": "Ana."}) for i in range(40)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    words = ("task=sbatch", "name=x", "encoder=minilm", "decoder=minilm", "data.path=rows.jsonl")
    short = "generation.max_new_tokens=40"  # less than the default minimum, which the recipe lowers
    for swept in ((), ("-m", "seed=1,2")):
        outcome = run_py(*swept, *words, short, cwd=tmp_path)
        assert outcome.returncode == 0, outcome.stderr
        assert short in outcome.stdout


@pytest.mark.parametrize("words", [["name=a\ntouch owned\n#"], ["name=x", "output_root=a\rtouch owned"]])
def test_a_line_break_cannot_end_a_line_of_the_script(words, run_py, tmp_path):
    for swept in ([], ["-m", "seed=1,2"]):
        outcome = run_py(*swept, "task=sbatch", "debug=tiny", *words, cwd=tmp_path)
        assert outcome.returncode == 2, outcome.stdout
        assert "control character" in outcome.stderr
        assert "touch owned" not in outcome.stdout


@pytest.mark.parametrize("setting", ["comment='a\ntouch owned'", "additional_parameters={x: 'a\ntouch owned'}"])
def test_a_line_break_cannot_end_a_line_of_submitits_script(setting, run_py, tmp_path):
    words = ("-m", "debug=tiny", "name=s", "seed=1,2", "hydra/launcher=submitit_slurm", "task=sbatch")
    outcome = run_py(*words, f"++hydra.launcher.{setting}", cwd=tmp_path)
    assert outcome.returncode == 2, outcome.stdout
    assert "control character" in outcome.stderr


@pytest.mark.slow
def test_the_script_of_a_sweep_is_an_array_whose_task_runs_its_job_on_every_rank(run_py, tmp_path):
    words = ("debug=tiny", "name=s", "trainer.strategy=ddp", "trainer.devices=2", "decoder=bert")
    varied = ("encoder=bert,electra", "optim.betas=[0.9,0.98],[0.8,0.9]")
    outcome = run_py("-m", "task=sbatch", *words, *varied, cwd=tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    assert {"#SBATCH --array=0-3", "#SBATCH --ntasks-per-node=2"} <= set(outcome.stdout.splitlines())
    assert outcome.stdout.startswith("#!/bin/bash\n")
    assert not list(tmp_path.rglob("result.json"))

    script = outcome.stdout.replace("\nsrun python ", f"{srun_of_two_tasks()}\nsrun {sys.executable} ")
    environment = os.environ | {"SLURM_ARRAY_TASK_ID": "2"}
    for said in ("2 ranks, each with config", "Already complete, not run again"):
        ran = subprocess.run(
            ["bash"], input=script, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=200
        )
        assert ran.returncode == 0, ran.stderr
        (path,) = tmp_path.glob("runs/multirun/s/*/result.json")
        assert said in (path.parent / "cli.log").read_text()
        result = json.loads(path.read_text())
        assert (result["status"], result["choices"]["encoder"]) == ("complete", "electra")
        assert result["config"]["optim"]["betas"] == [0.9, 0.98]


def test_for_submitit_it_prints_what_submitit_submits(run_py, tmp_path, monkeypatch):
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "srun").write_text("#!/bin/sh\n")
    (tools / "sbatch").write_text(f'#!/bin/sh\ncp "$1" {tmp_path}/part && mv {tmp_path}/part {tmp_path}/submitted\n')
    words = ["-m", "debug=tiny", "name=s", "seed=1,2", "hydra/launcher=submitit_slurm", "trainer.devices=2"]
    words += ["hydra.launcher.tasks_per_node=2", "hydra.launcher.mem_gb=8", "hydra.launcher.setup=[module load cuda]"]
    words += ["hydra.launcher.gpus_per_node=2", "+hydra.launcher.additional_parameters={requeue: true}"]
    printed = run_py(*words, "task=sbatch", cwd=tmp_path)
    assert printed.returncode == 0, printed.stderr
    assert not list(tmp_path.glob("runs/**/.submitit"))
    for option in ("array=0-1%2", "ntasks-per-node=2", "gpus-per-node=2", "requeue", "signal=USR2@120"):
        assert f"#SBATCH --{option}\n" in printed.stdout

    for tool in tools.iterdir():
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    run_py(*words, cwd=tmp_path)  # ends at once: the stand-in for sbatch says no job's number
    assert printed.stdout == (tmp_path / "submitted").read_text() + "\n"

    words[6] = "hydra.launcher.tasks_per_node=1"
    refused = run_py(*words, "task=sbatch", cwd=tmp_path)
    assert refused.returncode == 2
    assert "Set hydra.launcher.tasks_per_node=2" in refused.stderr


def test_the_jobs_of_an_array_must_be_valid_and_have_the_same_machines(run_py, tmp_path):
    for words, said in (
        (("name=s", "optim.new_rate=0.1,-1"), "optim.new_rate=-1"),
        (("name=s", "trainer.devices=1,2"), "same machines"),
        (("seed=1,2",), "needs name="),
        (("sweep=rates",), "proposes a job only after it knows the last"),
    ):
        outcome = run_py("-m", "task=sbatch", "debug=tiny", *words, cwd=tmp_path)
        assert outcome.returncode == 2, words
        assert said in outcome.stderr
        assert outcome.stdout == ""
        assert "Traceback" not in outcome.stderr
