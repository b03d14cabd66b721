"""A run's file names are in one place, and they stay what they were: runs of earlier versions have to open."""

import ast
from pathlib import Path

import warmstart
from warmstart.runs import run_dir as module
from warmstart.runs.run_dir import CheckpointDir, RunDir, SweepDir

OF_RUN = {
    "result": "result.json",
    "previous_result": "result.previous.json",
    "predictions": "predictions.jsonl",
    "metrics": "metrics.csv",
    "samples": "validation_samples.jsonl",
    "skipped_steps": "nonfinite.jsonl",
    "export": "export",
    "wandb_id": "wandb_id.txt",
    "lock": ".run.lock",
    "hydra_config": ".hydra/config.yaml",
    "hydra_overrides": ".hydra/overrides.yaml",
    "set_aside_note": "set-aside.txt",
}
OF_CHECKPOINTS = {
    "last": "last.ckpt",
    "best": "best.ckpt",
    "nonfinite": "nonfinite.ckpt",
    "sums": "SHA256SUMS",
    "tokenizers": "tokenizers",
    "unfinished": "unfinished",
    "finished": "finished",
}
OF_SWEEP = {"multirun": "multirun.yaml", "lock": ".search.lock", "study": "search.db", "best": "search.yaml"}


def test_names_are_those_of_runs_that_exist():
    folder = Path("runs/demo")
    assert RunDir(folder).checkpoints == CheckpointDir(folder / "checkpoints")
    for owner, names in (
        (RunDir(folder), OF_RUN),
        (SweepDir(folder), OF_SWEEP),
        (CheckpointDir(folder), OF_CHECKPOINTS),
    ):
        assert {attribute: getattr(owner, attribute) for attribute in names} == {
            attribute: folder / name for attribute, name in names.items()
        }
    assert CheckpointDir(folder).older(2) == folder / "last-2.ckpt"


def test_no_other_module_spells_a_file_name():
    names = {name for of in (OF_RUN, OF_CHECKPOINTS, OF_SWEEP) for name in of.values() if "." in name} | {"SHA256SUMS"}
    names |= {f"*/{name}" for name in names}
    package = Path(warmstart.__file__).parent
    found = [
        f"{file.relative_to(package)}:{node.lineno}: {node.value}"
        for file in package.rglob("*.py")
        if file != Path(module.__file__)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in names
    ]
    assert found == []


def test_a_run_is_found_from_its_folder_a_checkpoint_of_it_and_its_export(tmp_path, monkeypatch):
    run = RunDir(tmp_path / "demo")
    for path in (run.path, run.checkpoints.best, run.export):
        assert RunDir.of(path) == run
    run.checkpoints.path.mkdir(parents=True)
    monkeypatch.chdir(run.checkpoints.path)
    assert RunDir.of(Path("best.ckpt")) == run


def test_checkpoints_are_listed_the_newest_first_and_files_of_a_person_are_not(tmp_path):
    folder = CheckpointDir(tmp_path)
    for name in ("last-10.ckpt", "last-2.ckpt", "last.ckpt", "last-mine.ckpt", "best.ckpt", "SHA256SUMS", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / ".last.ckpt.123.tmp").touch()
    (tmp_path / ".notes.txt.123.tmp").touch()
    assert folder.newest_first() == [folder.last, folder.older(2), folder.older(10)]
    assert {path.name for path in folder.own_files()} == {
        *("last-10.ckpt", "last-2.ckpt", "last.ckpt", "best.ckpt", "SHA256SUMS"),
    }
    assert [path.name for path in folder.partial_files()] == [".last.ckpt.123.tmp"]


def test_runs_below_a_folder_are_found_by_result_or_config(tmp_path):
    RunDir(tmp_path / "b").path.mkdir()
    RunDir(tmp_path / "b").write_result({"status": "complete"})
    config = RunDir(tmp_path / "a").hydra_config
    config.parent.mkdir(parents=True)
    config.touch()
    (tmp_path / "c").mkdir()
    assert RunDir.below(tmp_path) == [RunDir(tmp_path / "a"), RunDir(tmp_path / "b")]
    assert [job.path.name for job in SweepDir(tmp_path).jobs()] == ["a"]
