"""Which checkpoint a fit resumes, and what happens to the files that it finds in its folder."""

import pytest
import torch

from warmstart.errors import UserError
from warmstart.runs.checkpoint_io import newest_sound
from warmstart.runs.run_dir import RunDir
from warmstart.tasks import fit


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def finished(settings_of, tmp_path):
    run = tmp_path / "run"
    best = fit.run(settings_of("debug=tiny", "trainer.max_steps=2"), run)
    (run / "checkpoints" / "my-best.ckpt").write_text("a person's")
    (run / "checkpoints" / "last-backup.ckpt").write_text("a person's, too")
    (run / "checkpoints" / ".notes.tmp").write_text("a person's, too")
    return run, best


def test_a_finished_run_repeated_is_left_as_it_is(finished, settings_of, caplog):
    run, best = finished
    before = contents(run)
    with caplog.at_level("INFO"):
        assert fit.run(settings_of("debug=tiny", "trainer.max_steps=2"), run) == best
    assert f"Already complete, not run again: {run}. To start over, set ckpt=new." in caplog.text
    assert contents(run) == before


def test_a_finished_run_from_another_checkpoint_repeated_is_left_as_it_is(finished, settings_of, tmp_path):
    other, _ = finished
    run, command = tmp_path / "second", settings_of("debug=tiny", "trainer.max_steps=3", f"ckpt={other}")
    fit.run(command, run)
    before = contents(run)
    fit.run(command, run)
    assert contents(run) == before
    with pytest.raises(UserError, match="a complete run with another config, or from another checkpoint"):
        fit.run(settings_of("debug=tiny", "trainer.max_steps=3"), run)
    assert contents(run) == before


def test_a_finished_run_whose_result_is_gone_is_not_trained_again(finished, settings_of):
    run, best = finished
    (run / "result.json").unlink()  # as an evaluation into the folder leaves it when it is killed
    before = contents(run / "checkpoints")
    assert fit.run(settings_of("debug=tiny", "trainer.max_steps=2"), run) == best
    assert (RunDir(run).read_result()["steps"], RunDir(run).read_result()["resumed"]) == (2, True)
    assert {name: before[name] for name in before if name.name != "last.ckpt"}.items() <= contents(
        run / "checkpoints"
    ).items()


def test_old_checkpoints_stay_until_the_new_ones_are_complete(finished, settings_of, monkeypatch):
    run, _ = finished
    before = contents(run)
    command = settings_of("debug=tiny", "trainer.max_steps=3", "ckpt=new")

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("warmstart.tasks.evaluate.score", killed)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                fit.run(command, run)
    assert (
        contents(run / "previous-1" / "checkpoints").items()
        >= {
            path.relative_to("checkpoints"): content
            for path, content in before.items()
            if path.name in ("last.ckpt", "best.ckpt", "SHA256SUMS", "finished") or "tokenizers" in path.parts
        }.items()
    )
    assert torch.load(run / "previous-2" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 3
    (run / "previous-2" / "notes.txt").write_text("a person's")
    (run / "previous-3").mkdir()
    (run / "previous-3" / "best.ckpt").write_text("a person's")
    fit.run(settings_of("debug=tiny", "trainer.max_steps=3"), run)  # resumes the one that was started over
    assert RunDir(run).read_result()["steps"] == 3
    assert not (run / "previous-1").exists()
    assert [path.name for path in (run / "previous-2").iterdir()] == ["notes.txt"]
    assert (run / "previous-3" / "best.ckpt").exists()
    persons = ("my-best.ckpt", "last-backup.ckpt", ".notes.tmp")
    assert all((run / "checkpoints" / name).read_text().startswith("a person's") for name in persons)
    assert RunDir(run).checkpoints.finished.exists()
    assert not RunDir(run).checkpoints.unfinished.exists()


@pytest.mark.parametrize("name", ["last-backup.ckpt", "last-v1.ckpt", "last-.ckpt"])
def test_files_of_others_break_no_resume(name, tmp_path):
    torch.save({}, tmp_path / "last-2.ckpt")
    (tmp_path / name).write_text("not a number")
    assert newest_sound(tmp_path) == tmp_path / "last-2.ckpt"
