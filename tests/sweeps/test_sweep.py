"""Sweeps: each job has its folder and resumes after a kill; failures do not stop the others and are reported."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from offline_wandb import records

from warmstart.sweeps.sweep import summary, sweep_folder

KILLED = Path(__file__).with_name("killed_sweep.py")
RUN = Path(__file__).parents[2] / "run.py"
# Three steps, with a validation and a checkpoint after each.
TINY = ("debug=tiny", "name=s", "trainer.validations_per_epoch=3")


def results(root: Path) -> dict[str, dict]:
    found = sorted((root / "runs" / "multirun").glob("*/*/result.json"))
    return {path.parent.name: json.loads(path.read_text()) for path in found}


def test_the_name_of_a_sweep_depends_on_its_choices_not_on_order_or_launcher():
    one = sweep_folder(["-m", "encoder=bert,roberta", "seed=1,2"])
    assert one == sweep_folder(["seed=1,2", "--multirun", "encoder=bert,roberta", "hydra/launcher=joblib"])
    assert one != sweep_folder(["-m", "encoder=bert,roberta", "seed=1,3"])


def test_a_failing_job_lets_the_others_run_and_is_tried_again(run_py, tmp_path):
    words = ("-m", "debug=tiny", "trainer.validations_per_epoch=0,1", "name=s")
    outcome = run_py(*words, cwd=tmp_path)
    assert outcome.returncode == 1
    assert "2 jobs, 1 failed" in outcome.stdout
    assert "trainer.validations_per_epoch=0 is invalid" in outcome.stdout
    assert "Traceback" not in outcome.stderr
    first = results(tmp_path)
    assert sorted(result["status"] for result in first.values()) == ["complete", "failed"]
    for job, result in first.items():
        assert job == result["config_hash"]
        log = (tmp_path / "runs" / "multirun" / "s" / job / "cli.log").read_text()
        assert ("validations_per_epoch=0 is invalid" in log) == (result["status"] == "failed")

    again = run_py(*words, cwd=tmp_path)
    assert again.returncode == 1
    assert "Already complete, not run again" in again.stdout + again.stderr
    complete = [job for job, result in first.items() if result["status"] == "complete"]
    assert {job: results(tmp_path)[job] for job in complete} == {job: first[job] for job in complete}


def test_a_command_line_mistake_is_not_a_failed_job(run_py, tmp_path):
    for words, said in ((("ckpt=last", "seed=1,2"), "ckpt=last was requested in a sweep"), (("encoder=nope",), "nope")):
        outcome = run_py("-m", "debug=tiny", "name=s", *words, cwd=tmp_path)
        assert outcome.returncode == 2
        assert outcome.stderr.count("warmstart: ") == 1
        assert said in outcome.stderr
        assert "Traceback" not in outcome.stderr
        assert "failed" not in outcome.stdout


DAMAGES = {
    "result.json": ["[]", "NaN", '{"status": "comp', '{"status": "complete", "metrics": 3}'],
    ".hydra/overrides.yaml": ["a: [", "seed: 1", "*a"],
    ".hydra/config.yaml": ["", "- a", "task: [", "*a"],
}


@pytest.mark.parametrize(("file", "text"), [(file, text) for file, texts in DAMAGES.items() for text in texts])
def test_a_damaged_job_is_listed_with_its_file(tmp_path, file, text):
    for name in ("a", "b"):
        (tmp_path / name / ".hydra").mkdir(parents=True)
        (tmp_path / name / ".hydra" / "config.yaml").write_text("task: fit\n")
        (tmp_path / name / ".hydra" / "overrides.yaml").write_text("- seed=1\n")
    (tmp_path / "b" / file).write_text(text)
    lines, failed = summary(tmp_path)
    assert [line.split()[:2] for line in lines] == [["a", "partial"], ["b", "damaged"]]
    assert f"{tmp_path / 'b' / file} is damaged (" in lines[1]
    assert failed == 0


def test_a_kill_before_hydra_wrote_the_overrides_leaves_a_partial_job(tmp_path):
    (tmp_path / "a" / ".hydra").mkdir(parents=True)
    (tmp_path / "a" / ".hydra" / "config.yaml").write_text("task: fit\n")
    assert summary(tmp_path) == (["  a  partial     the same command resumes it"], 0)


def test_recorded_overrides_are_listed_as_they_were_typed(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    (tmp_path / "a" / ".hydra").mkdir(parents=True)
    (tmp_path / "a" / ".hydra" / "config.yaml").write_text("task: fit\nname: ${oc.env:HF_TOKEN}\n")
    (tmp_path / "a" / ".hydra" / "overrides.yaml").write_text("- name=${oc.env:HF_TOKEN}\n- seed=${no_such:1}\n")
    (line,), _ = summary(tmp_path)
    assert "name=${oc.env:HF_TOKEN} seed=${no_such:1}" in line


def left_in(folder: Path) -> str:
    """How far the job got that this folder is of."""
    if (folder / "result.json").exists():
        return "result"
    if list(folder.glob(".result.json.*.tmp")):
        return "half a result"
    return "checkpoint" if (folder / "checkpoints" / "last.ckpt").exists() else "nothing"


@pytest.mark.slow
def test_a_sweep_killed_three_times_ends_like_an_uninterrupted_one(run_py, tmp_path):
    words = ("-m", *TINY, "encoder=bert,electra", "decoder=bert", "seed=1,2,3")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    outcome = run_py(*words, cwd=whole)
    assert outcome.returncode == 0, outcome.stderr
    expected = results(whole)
    assert len(expected) == 6

    done: dict[str, dict] = {}
    moments = {
        "before_the_first_checkpoint": ["nothing", "result"],
        "in_a_fit": ["checkpoint", "result", "result"],
        "writing_the_result": ["half a result", "result", "result", "result"],
    }
    for moment, left in moments.items():
        killed = run_py(moment, *words, cwd=broken, script=KILLED)
        assert killed.returncode == -9, killed.stderr
        now = results(broken)
        jobs = [path for path in (broken / "runs" / "multirun" / "s").iterdir() if path.is_dir()]
        assert sorted(left_in(job) for job in jobs) == left
        assert {job: now[job] for job in done} == done
        done = now
    outcome = run_py(*words, cwd=broken)
    assert outcome.returncode == 0, outcome.stderr
    assert "6 jobs, 0 failed" in outcome.stdout
    found = results(broken)
    assert {job: found[job] for job in done} == done  # seconds and all: none was run twice
    assert any(result["resumed"] for result in found.values())
    for part in ("metrics", "baselines", "controls"):
        assert {job: result[part] for job, result in found.items()} == {
            job: result[part] for job, result in expected.items()
        }


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "ray"])
def test_other_launchers_find_the_same_jobs_and_print_the_same_list(launcher, run_py, tmp_path):
    words = ("debug=tiny", "trainer.validations_per_epoch=0,1", "seed=1,2", "name=s")
    outcome = run_py("-m", f"hydra/launcher={launcher}", *words, cwd=tmp_path)
    assert outcome.returncode == 1, outcome.stderr
    assert "4 jobs, 2 failed" in outcome.stdout
    first = results(tmp_path)
    outcome = run_py("-m", *words, cwd=tmp_path)  # with Hydra's own launcher
    assert outcome.returncode == 1
    assert "4 jobs, 2 failed" in outcome.stdout
    complete = {job: result for job, result in first.items() if result["status"] == "complete"}
    assert len(complete) == 2
    assert {job: results(tmp_path)[job] for job in complete} == complete


@pytest.mark.slow
def test_two_processes_share_a_sweep_and_run_each_job_once(tmp_path):
    command = [sys.executable, RUN, "-m", "debug=tiny", "name=s", "seed=1,2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    both = [subprocess.Popen(command, cwd=tmp_path, **pipes) for _ in range(2)]
    said = "".join(process.communicate(timeout=300)[0] for process in both)
    assert [process.returncode for process in both] == [0, 0], said
    assert [result["status"] for result in results(tmp_path).values()] == ["complete"] * 2
    assert said.count("Already complete") == 2


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_every_rank_of_a_job_has_its_config(launcher, run_py, tmp_path):
    ranks = ("debug=tiny", "trainer.devices=2", "trainer.strategy=ddp", "encoder=bert", "decoder=bert")
    outcome = run_py("-m", f"hydra/launcher={launcher}", *ranks, "optim.new_rate=0.1,0.001", "name=s", cwd=tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    swept = results(tmp_path)
    assert len(swept) == 2
    for rate in ("0.1", "0.001"):  # ranks of different rates would end elsewhere than ranks of one
        alone = run_py(*ranks, f"optim.new_rate={rate}", f"name=alone{rate}", cwd=tmp_path)
        assert alone.returncode == 0, alone.stderr
        result = json.loads((tmp_path / "runs" / f"alone{rate}" / "result.json").read_text())
        assert swept[result["config_hash"]]["metrics"] == result["metrics"]
        words = (tmp_path / "runs" / "multirun" / "s" / result["config_hash"] / ".hydra" / "overrides.yaml").read_text()
        assert f"optim.new_rate={rate}" in words


@pytest.mark.slow
def test_a_job_whose_ranks_fail_lets_the_next_one_run(run_py, tmp_path):
    ranks = ("debug=tiny", "trainer.devices=2", "trainer.strategy=ddp")
    outcome = run_py("-m", *ranks, "optim.weight_decay=1e30,0.01", "name=s", cwd=tmp_path)
    assert outcome.returncode == 1
    assert "2 jobs, 1 failed" in outcome.stdout
    assert sorted(result["status"] for result in results(tmp_path).values()) == ["complete", "failed"]


@pytest.mark.slow
def test_in_wandb_a_sweep_is_a_group_with_one_run_for_each_job(run_py, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    words = ("-m", "debug=tiny", "logger=wandb", "name=s", "optim.weight_decay=0.01,1e30")
    for _ in range(2):  # the failed job continues its own run
        outcome = run_py(*words, cwd=tmp_path)
        assert outcome.returncode == 1
        assert "2 jobs, 1 failed" in outcome.stdout
    ids = set()
    for job, result in results(tmp_path).items():
        runs = sorted((tmp_path / "runs" / "multirun" / "s" / job / "wandb").glob("offline-run-*"))
        assert len(runs) == (1 if result["status"] == "complete" else 2)
        known = set()
        for run in runs:
            written = list(records(run))
            (began,) = (record.run for record in written if record.HasField("run"))
            known.add(began.run_id)
            assert began.run_group == "s"
            decay = result["config"]["optim"]["weight_decay"]
            assert began.display_name == f"bert-gpt2-optim.weight_decay={decay:.4g}-seed1"
            assert {"encoder=bert", "decoder=gpt2"} <= set(began.tags)
            codes = [record.exit.exit_code for record in written if record.HasField("exit")]
            assert codes == [0 if result["status"] == "complete" else 2]
            names = {item.nested_key[0] if item.nested_key else item.key for r in written for item in r.history.item}
            assert "train/loss" in names
        ids |= known
        assert len(known) == 1
    assert len(ids) == 2
