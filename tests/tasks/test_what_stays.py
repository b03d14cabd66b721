"""What a fit, an evaluation and a failed command leave on disk."""

import pytest
import torch

from warmstart.errors import UserError
from warmstart.runs.run_dir import RunDir
from warmstart.tasks import evaluate, fit

EPOCHS = ("debug=tiny", "trainer.max_steps=-1")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder for a run of two epochs; the first test that needs it trains it."""
    return tmp_path_factory.mktemp("trained")


@pytest.fixture
def run(trained, settings_of):
    """A complete run of two epochs."""
    if not RunDir(trained).is_complete:
        fit.run(settings_of(*EPOCHS, "trainer.max_epochs=2"), trained)
    return RunDir(trained)


def test_resuming_beyond_the_end_is_explained_and_keeps_the_result(run, settings_of):
    with pytest.raises(UserError, match=r"already taken 6 steps in 2 epochs.*trainer\.max_epochs=1: nothing"):
        fit.run(settings_of(*EPOCHS, "trainer.max_epochs=1", f"ckpt={run.path}"), run.path)
    assert run.is_complete
    assert not run.previous_result.exists()


def test_only_the_last_checkpoint_has_an_optimizer_state(run):
    def of(path):
        return torch.load(path, weights_only=True)

    assert "optimizer_states" in of(run.checkpoints.last)
    assert "optimizer_states" not in of(run.checkpoints.best)
    assert run.checkpoints.newest_first() == [run.checkpoints.last]
    assert {line.split()[1] for line in run.checkpoints.sums.read_text().splitlines()} == {"best.ckpt", "last.ckpt"}


def test_a_fit_does_not_resume_a_checkpoint_without_optimizer_state(run, settings_of, tmp_path):
    more = settings_of(*EPOCHS, "trainer.max_epochs=4", f"ckpt={run.checkpoints.best}")
    with pytest.raises(UserError, match=r"holds weights without an optimizer state.*last\.ckpt.*ckpt_weights="):
        fit.run(more, tmp_path)


def test_an_evaluation_exports_nothing(run, settings_of, tmp_path):
    evaluate.run(settings_of("debug=tiny", f"ckpt={run.path}"), tmp_path / "again")
    assert RunDir(tmp_path / "again").is_complete
    assert not RunDir(tmp_path / "again").export.exists()
    assert run.export.exists()


def test_a_command_that_fails_before_it_starts_leaves_no_folder(run_py, tmp_path):
    unread = ["data=files", "data.path=none.csv"]  # without debug=tiny the recipe logs that it cannot read them
    for words in (["debug=tiny", *unread], ["task=check", *unread], ["task=evaluate", "ckpt=none"]):
        failed = run_py(*words, cwd=tmp_path)
        assert failed.returncode == 2, failed.stderr
        assert [path.name for path in tmp_path.rglob("*")] == []
