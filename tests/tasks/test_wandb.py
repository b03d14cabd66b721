"""W&B from the first step to the last, read back from what a run wrote offline; and an agent of W&B Sweeps."""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from offline_wandb import records

ROOT = Path(__file__).parents[2]


def values(items) -> dict[str, object]:
    """Keys, nested ones with dots, to values."""
    return {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def read_back(folder: Path) -> dict:
    """Everything that a person sees on the page of the one run in ``folder``, which was started once."""
    (run,) = folder.glob("wandb/offline-run-*")
    return read_run(run)


def read_run(run: Path) -> dict:
    """The same of what one start of a run wrote."""
    written = list(records(run))
    (began,) = (record.run for record in written if record.HasField("run"))
    history = [values(record.history.item) for record in written if record.HasField("history")]
    summary: dict[str, object] = {}
    for record in written:
        if record.HasField("summary"):
            summary |= values(record.summary.update)
    (code,) = (record.exit.exit_code for record in written if record.HasField("exit"))
    told = [began.config, *(record.config for record in written if record.HasField("config"))]
    config = {item.key: json.loads(item.value_json) for part in told for item in part.update}
    return {"run": began, "config": config, "history": history, "summary": summary, "exit_code": code}


@pytest.mark.slow
def test_a_run_shows_all_that_its_result_says(run_py, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    outcome = run_py("debug=tiny", "logger=wandb", "name=r", "bridge.share=none", cwd=tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    folder = tmp_path / "runs" / "r"
    result = json.loads((folder / "result.json").read_text())
    found = read_back(folder)
    assert found["run"].job_type == "fit"
    assert found["config"]["parameters"] == result["parameters"]
    assert found["config"]["encoder"]["name"] == "bert"
    curves = {name for row in found["history"] for name in row}
    assert curves >= {"train/loss", "validation/loss", "validation/rouge1", "memory/peak_bytes", "rate/new"}
    assert curves >= {"throughput/tokens_per_second", "throughput/padding_fraction", "validation/samples._type"}
    summary = found["summary"]
    for kind in ("rouge1", "rouge2", "rougeL", "rougeLsum", "nll"):
        assert summary[f"test/{kind}"] == result["metrics"][f"test/{kind}"]
        assert [summary[f"test/{kind}_{end}"] for end in ("low", "high")] == result["metrics"][f"test/{kind}_ci"]
    lead, control = result["baselines"]["lead1"], result["controls"]["shuffled_document"]
    assert summary["baselines/lead1/rouge1_difference_high"] == lead["rouge1_difference_ci"][1]
    assert summary["controls/shuffled_document/rouge1"] == control["rouge1"]
    assert summary["throughput/tokens_per_second"] == result["throughput"]["tokens_per_second"]
    assert summary["validation/best"] == result["validation"]["best"]
    assert found["exit_code"] == 0


@pytest.mark.slow
def test_a_run_that_is_asked_to_end_ends_in_wandb_with_that_status(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    words = ("debug=tiny", "logger=wandb", "name=r", "trainer.max_epochs=1000000", "trainer.max_steps=-1")
    folder = tmp_path / "runs" / "r"
    run = subprocess.Popen([sys.executable, ROOT / "run.py", *words], cwd=tmp_path, stderr=subprocess.DEVNULL)
    while not (folder / "checkpoints" / "last.ckpt").exists():
        assert run.poll() is None
        time.sleep(0.2)
    run.terminate()
    assert run.wait(timeout=100) == 143
    assert read_back(folder)["exit_code"] == 143


# A file that is there, whose rows are found to be of no use only once the job has begun.
ROWS = '{"story": "A.", "gist": "B."}\n'
OF_ROWS = ("debug=tiny", "logger=wandb", "data=files", "data.path=rows.jsonl")


def test_a_job_that_fails_before_its_model_is_built_is_one_run_too_and_goes_on_in_it(run_py, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    (tmp_path / "rows.jsonl").write_text(ROWS)
    for times in (1, 2):
        outcome = run_py("-m", *OF_ROWS, "name=s", "seed=7", "logger.tags=[mine]", cwd=tmp_path)
        assert outcome.returncode == 1, outcome.stderr
        (path,) = tmp_path.glob("runs/multirun/s/*/result.json")
        assert json.loads(path.read_text())["status"] == "failed"
        starts = list(path.parent.glob("wandb/offline-run-*"))
        assert len(starts) == times
        for found in map(read_run, starts):
            began = found["run"]
            place = f"s/{path.parent.name}"
            assert began.run_id == hashlib.sha256(place.encode()).hexdigest()[:12]
            assert (began.run_group, began.job_type, began.display_name) == ("s", "fit", "bert-gpt2-seed7")
            assert set(began.tags) >= {"mine", "encoder=bert", "data=files"}
            assert found["config"]["seed"] == 7
            assert found["exit_code"] == 2  # the user's mistake, as of a run of its own


def test_a_further_rank_that_fails_has_no_run_and_leaves_what_the_first_to_fail_has_said(run_py, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    (tmp_path / "rows.jsonl").write_text(ROWS)
    folder = tmp_path / "runs" / "r"
    assert run_py(*OF_ROWS, "name=r", cwd=tmp_path).returncode == 2
    said = (folder / "result.json").stat().st_mtime_ns
    read_back(folder)
    for name, value in {"LOCAL_RANK": "1", "NODE_RANK": "0", "WORLD_SIZE": "2"}.items():  # as Lightning starts it
        monkeypatch.setenv(name, value)
    assert run_py(*OF_ROWS, "name=r", cwd=tmp_path).returncode == 2
    assert (folder / "result.json").stat().st_mtime_ns == said
    read_back(folder)  # still one
    (folder / "wandb_id.txt").unlink()
    assert run_py(*OF_ROWS, "name=r", cwd=tmp_path).returncode == 2
    assert not (folder / "wandb_id.txt").exists()


def test_a_config_that_is_refused_before_anything_starts_has_no_run(run_py, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    outcome = run_py("debug=tiny", "logger=wandb", "name=r", "optim.new_rate=-1", cwd=tmp_path)
    assert outcome.returncode == 2
    assert not list(tmp_path.rglob("*wandb*"))


@pytest.mark.slow
def test_an_evaluation_logs_to_the_run_of_its_fit_where_its_command_says_so(run_py, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    words = ("debug=tiny", "logger=wandb", "evaluation.test=false")
    assert run_py(*words, "name=r", cwd=tmp_path).returncode == 0
    fitted = read_back(tmp_path / "runs" / "r")
    assert not any(name.startswith("test/") for name in fitted["summary"])
    of_fit = ("task=evaluate", "ckpt=runs/r", "data.processes=1")
    outcome = run_py(*of_fit, "name=silent", cwd=tmp_path)  # logger=wandb is recorded in the checkpoint
    assert outcome.returncode == 0, outcome.stderr
    assert not (tmp_path / "runs" / "silent" / "wandb").exists()
    for name, more in (("same", ()), ("other", ("generation.num_beams=2",))):
        outcome = run_py(*of_fit, "logger=wandb", f"name={name}", *more, cwd=tmp_path)
        assert outcome.returncode == 0, outcome.stderr
        result = json.loads((tmp_path / "runs" / name / "result.json").read_text())
        found = read_back(tmp_path / "runs" / name)
        assert found["summary"]["test/rouge1"] == result["metrics"]["test/rouge1"]
        # Scores of another search would stand in the fit's run as its own.
        assert (found["run"].run_id == fitted["run"].run_id) == (name == "same")
        assert found["exit_code"] == 0


@pytest.mark.slow
def test_what_an_agent_of_wandb_sweeps_makes_of_the_example_is_a_trial_of_its_sweep(tmp_path, monkeypatch):
    from wandb.sdk.launch.sweeps.utils import load_sweep_config
    from wandb.wandb_agent import Agent

    sweep = load_sweep_config(str(ROOT / "docs" / "wandb_sweep.yaml"))
    assert sweep is not None
    drawn = {name: {"value": space["min"] * 1.5} for name, space in sweep["parameters"].items()}
    (tmp_path / sweep["program"]).symlink_to(ROOT / sweep["program"])
    monkeypatch.chdir(tmp_path)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for name, value in {"WANDB_MODE": "offline", "WANDB_SWEEP_ID": "sweep7", "WANDB_DIR": None, "PATH": path}.items():
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    monkeypatch.setenv("WANDB_RUN_ID", "undone")  # the agent sets these in its own process
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", "undone")
    agent = Agent(None, None, sweep_id="sweep7")
    place = sweep["command"].index("${args_no_hyphens}")
    agent._sweep_command = [*sweep["command"][:place], "debug=tiny", *sweep["command"][place:]]
    agent._command_run({"run_id": "trial3", "program": sweep["program"], "args": drawn})
    assert agent._run_processes["trial3"].wait(timeout=200) == 0

    (result,) = tmp_path.glob("runs/*/*/result.json")
    config = json.loads(result.read_text())["config"]
    for name, value in drawn.items():
        group, key = name.split(".")
        assert config[group][key] == value["value"]
    found = read_back(result.parent)
    assert (found["run"].run_id, found["run"].sweep_id) == ("trial3", "sweep7")
    # wandb takes the agent's id whatever it is given; what a resumed run goes on with has to be the same.
    assert (result.parent / "wandb_id.txt").read_text() == "trial3"
    assert sweep["metric"]["name"] in found["summary"]
    assert found["exit_code"] == 0
