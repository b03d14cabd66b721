"""Each evaluation on the test split of a run is counted once, whoever evaluates, and the number is in its result."""

import json
import os
import subprocess
import sys

import pytest
from hydra import compose, initialize_config_dir

from warmstart.cli.main import config_dir
from warmstart.config.schema import to_settings
from warmstart.runs.looks import count_look, run_of_test_split
from warmstart.runs.recorded import with_recorded
from warmstart.runs.run_dir import RunDir
from warmstart.runs.saved_model import SavedModel
from warmstart.tasks import evaluate, fit

CHECKPOINT = {"name": "best.ckpt", "sha256": "a"}
COUNTING = """
import sys
from pathlib import Path
from warmstart.runs.looks import count_look
from warmstart.runs.run_dir import RunDir
print("ready", flush=True)
sys.stdin.read()  # until all are ready
for number in range(20):
    count_look(RunDir(Path("run")), {"name": "best.ckpt", "sha256": "a"}, Path("of"))
    if sys.argv[1] == "writes":
        RunDir(Path("run")).write_result({"status": "complete", "metrics": {}, "test_looks": 0})
"""


def looks_of(path):
    return RunDir(path).read_result().get("test_looks")


@pytest.fixture
def written(tmp_path):
    """A run with a result that has no test scores."""
    run = RunDir(tmp_path / "run")
    run.write_result({"status": "complete", "metrics": {"validation/rouge1": 1.0}, "test_looks": 0})
    return run


def test_concurrent_evaluations_lose_no_look(written, tmp_path):
    command = [sys.executable, "-c", COUNTING]
    pipes = {"cwd": tmp_path, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    started = [subprocess.Popen([*command, what], **pipes) for what in ("counts", "writes", "counts")]
    assert [process.stdout.readline() for process in started] == ["ready\n"] * 3
    for process in started:
        process.stdin.close()
    assert [process.wait(timeout=120) for process in started] == [0, 0, 0]
    for process in started:
        process.stdout.close()
    assert looks_of(tmp_path / "run") == 60
    assert len((tmp_path / "run" / "test_looks.jsonl").read_text().splitlines()) == 60


def test_a_later_result_states_the_looks_that_the_folder_records(written, tmp_path):
    os.utime(written.result, (5, 5))
    assert [count_look(written, CHECKPOINT, tmp_path / name) for name in "ab"] == [1, 2]
    assert written.result.stat().st_mtime == 5  # a report takes the newest result of a checkpoint
    written.set_result_aside()
    written.write_result({"status": "complete", "metrics": {}, "test_looks": 0})
    assert looks_of(written.path) == 2
    assert [json.loads(line)["result"] for line in written.looks.read_text().splitlines()] == [
        str(tmp_path / "a"),
        str(tmp_path / "b"),
    ]


def test_a_result_of_an_earlier_release_with_test_scores_is_one_look(tmp_path):
    run = RunDir(tmp_path)
    run.result.write_text(json.dumps({"status": "complete", "metrics": {"test/rouge1": 1.0}}))
    assert count_look(run, CHECKPOINT, tmp_path / "a") == 2
    assert looks_of(tmp_path) == 2
    run.result.write_text("{")  # damaged
    assert count_look(run, CHECKPOINT, tmp_path / "b") == 3


def test_a_read_only_run_is_evaluated_without_a_count(written, monkeypatch, caplog):
    def refused(self, look):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(RunDir, "add_look", refused)
    assert count_look(written, CHECKPOINT, written.path) is None
    assert "is read-only, so this look at its test split is not counted" in caplog.text


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "mine.jsonl"
    rows = [{"document": f"The river {i} rose by {i} metres.", "summary": f"River {i} rose."} for i in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def of_run(run, tmp_path, *words):
    words = [f"ckpt={run}", f"data.cache_dir={tmp_path / 'cache'}", *words]
    with initialize_config_dir(config_dir(), version_base="1.3"):
        return to_settings(with_recorded(compose("config", overrides=words), words))


def test_evaluations_in_other_folders_count_for_the_run_of_the_checkpoint(settings_of, texts, tmp_path, capsys):
    run = tmp_path / "run"
    few = ("evaluation.control_samples=0", "data.evaluation_max_tokens=512")
    fit.run(settings_of("debug=tiny", "data=files", f"data.path={texts}", "trainer.max_steps=2", *few), run)
    assert looks_of(run) == 1
    assert "Looks at the test split of this model's run: 1\n" in capsys.readouterr().out
    evaluate.run(of_run(run, tmp_path), tmp_path / "again")
    evaluate.run(of_run(run / "export", tmp_path, "data=files", f"data.path={texts}", *few), tmp_path / "exported")
    last = run / "checkpoints" / "last.ckpt"
    evaluate.run(of_run(last, tmp_path, "data.limit_test=1"), tmp_path / "last")  # a part of the same split
    assert [looks_of(tmp_path / name) for name in ("again", "exported", "last", "run")] == [2, 3, 4, 4]
    assert "Looks at the test split of this model's run: 4\n" in capsys.readouterr().out
    other = tmp_path / "other.jsonl"
    other.write_text(texts.read_text())
    evaluate.run(of_run(run, tmp_path, f"data.path={other}"), tmp_path / "of_other_texts")
    assert looks_of(tmp_path / "of_other_texts") is None
    evaluate.run(of_run(run, tmp_path), run)  # in the run's own folder
    assert looks_of(run) == 5


def test_another_test_file_or_split_is_not_the_test_split_of_the_run(settings_of, written, texts):
    saved = SavedModel(str(written.path))
    words = ("data=files", f"data.path={texts}")
    recorded = {"kind": "files", "path": str(texts), "test_path": None, "splits": {"test": "test"}}
    saved.__dict__ |= {"config": {"data": recorded}, "is_export": False, "file": written.checkpoints.best}
    assert run_of_test_split(saved, settings_of(*words)) == written
    same = f"data.path={texts.parent}/../{texts.parent.name}/{texts.name}"
    assert run_of_test_split(saved, settings_of("data=files", same, "data.limit_test=5")) == written
    for other in (f"data.test_path={texts}", "data.splits.test=dev"):
        assert run_of_test_split(saved, settings_of(*words, other)) is None
    written.result.unlink()
    assert run_of_test_split(saved, settings_of(*words)) is None  # a checkpoint that was copied elsewhere
