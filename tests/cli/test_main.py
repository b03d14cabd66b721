"""Exit statuses of the command line, one message for a user's mistake, and sweeps that continue."""

import copy
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from warmstart.cli.main import unnamed_folder
from warmstart.config.schema import register

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["encoder=nope"], "encoder=nope"),
        (["optim.encoder_rate=abc"], "optim.encoder_rate"),
        (["optim.encodr_rate=1"], "encodr_rate"),
        (["task=nope"], "task=nope"),
        (["task=summarize", "ckpt=absent", "input=a.txt"], "ckpt=absent"),
        (["data=files", "data.path=absent.jsonl"], "absent.jsonl"),
        (["encoder=bert", "encoder"], "encoder"),
        (["sweep=matrix", "debug=tiny"], "needs -m"),
        (["name=", "debug=tiny"], "names no folder"),
        (["-m", "name=", "debug=tiny"], "names no folder"),
        (["-m", "--cfg", "job"], "Only one of --run, --multirun, --cfg"),
        (["--resolve"], "can only be used in conjunction with --cfg"),
        (["debug=tiny", "trainer.strategy=dpp"], "trainer.strategy=dpp: unknown strategy. Did you mean 'ddp'?"),
        (["debug=tiny", "trainer.accelerator=tpu"], "trainer.accelerator=tpu"),
        (["encoder=[bert,roberta]"], "a run has one encoder. Name one, or start a run for each: python run.py -m enc"),
        (["task=report", "runs=runs/x"], "runs takes a list. Use brackets, with one value too: 'runs=[VALUE]'"),
    ],
)
def test_mistakes_end_in_one_message_and_status_two(words, named, run_py, tmp_path):
    outcome = run_py(*words, cwd=tmp_path)
    assert outcome.returncode == 2
    messages = [line for line in outcome.stderr.splitlines() if not line.startswith("[20")]  # without log lines
    assert messages[0].startswith("warmstart: ")
    assert named in outcome.stderr
    for noise in ("Traceback", "Error executing job", "tokenization.cache"):
        assert noise not in outcome.stderr


def test_runs_without_a_name_have_separate_folders(run_py, tmp_path):
    for _ in range(2):
        run_py("task=check", "debug=tiny", cwd=tmp_path)
    (folder,) = (tmp_path / "runs").iterdir()
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize(
    ("task", "ckpt", "folder"),
    [
        ("evaluate", "runs/demo", "of-demo"),
        ("evaluate", "/runs/demo/checkpoints/last.ckpt", "of-demo"),
        ("summarize", "runs/demo/export", "of-demo"),
        ("evaluate", "runs/t5-gpt2-news/20261126-101530-ab12", "of-t5-gpt2-news-20261126-101530-ab12"),
        ("evaluate", None, "bert-gpt2-news"),
        ("fit", "runs/demo", "bert-gpt2-news"),
    ],
)
def test_the_folder_of_a_task_without_a_name_contains_the_name_of_its_run(task, ckpt, folder):
    root = OmegaConf.create({"task": task, "ckpt": ckpt})
    assert unnamed_folder("bert-gpt2-news", _root_=root) == folder


def test_a_task_that_cannot_begin_leaves_no_folder(run_py, tmp_path):
    outcome = run_py("task=evaluate", "ckpt=absent/demo", cwd=tmp_path)
    assert outcome.returncode == 2
    assert not (tmp_path / "runs").exists()


def test_debug_true_shows_the_traceback_of_a_mistake(run_py, tmp_path):
    outcome = run_py("debug=true", "task=nope", cwd=tmp_path)
    assert outcome.returncode == 1
    assert "Traceback" in outcome.stderr


def test_an_unreachable_hub_is_reported_at_once_with_three_remedies(run_py, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setenv("HF_HOME", str(tmp_path / "empty"))
    monkeypatch.delenv("HF_HUB_OFFLINE")
    outcome = run_py("encoder=bert", "decoder=gpt2", cwd=tmp_path)
    assert outcome.returncode == 2
    for noise in ("Traceback", "Error executing job"):
        assert noise not in outcome.stderr + outcome.stdout
    assert outcome.stderr.count("warmstart: ") == 1
    for missing in ("data=cnn_dailymail", "encoder=bert", "decoder=gpt2", "http://127.0.0.1:9"):
        assert missing in outcome.stderr
    for way in (
        *(
            "encoder.path=",
            "decoder.path=",
            "data=files data.path=",
            "encoder=minilm decoder=minilm data=short_descriptions",
        ),
        *("encoder.weights=random decoder.weights=random", "debug=tiny"),
    ):
        assert way in outcome.stderr
    [result] = tmp_path.rglob("result.json")
    assert json.loads(result.read_text())["status"] == "failed"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [["--help-all"], ["--cfg", "job", "debug=tiny"], ["task=check", "debug=tiny"]])
def test_a_closed_pipe_ends_it_quietly(words, unbuffered, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)  # what ``| head`` does once it has enough
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    command = [sys.executable, ROOT / "run.py", *words]
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment, stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, "")


def test_help_creates_no_file_and_does_not_copy_the_store_for_each_group(run_py, tmp_path):
    outcome = run_py("--help", cwd=tmp_path)
    assert outcome.returncode == 0
    assert not list(tmp_path.iterdir())
    register()
    store = ConfigStore.instance()
    assert copy.deepcopy(store) is store
    assert store.load("schema.yaml").node is not store.load("schema.yaml").node  # what is given out is a copy


@pytest.mark.slow
def test_multirun_of_two_pairs(run_py, tmp_path):
    outcome = run_py("-m", "encoder=bert,electra", "decoder=bert", "debug=tiny", "name=sweep", cwd=tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    results = [json.loads(path.read_text()) for path in tmp_path.rglob("result.json")]
    assert sorted(result["choices"]["encoder"] for result in results) == ["bert", "electra"]
