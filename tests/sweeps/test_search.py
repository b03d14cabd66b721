"""Searches with Optuna resume after a kill to the same result, with every rank at the same point."""

import json
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from warmstart.errors import UserError
from warmstart.sweeps.search import _check_comparable, _study

KILLED = Path(__file__).with_name("killed_sweep.py")
SEARCH = ("-m", "debug=tiny", "hydra/sweeper=search", "name=s")
RATES = (*SEARCH, "optim.new_rate=tag(log,interval(1e-4,1e-1))")


def study(root: Path) -> optuna.Study:
    return optuna.load_study(study_name="s", storage=f"sqlite:///{root / 'runs' / 'multirun' / 's' / 'search.db'}")


def points(root: Path) -> dict[str, tuple[float, float]]:
    """Each job's point and value, by its own account."""
    found = {}
    for path in (root / "runs" / "multirun" / "s").glob("*/result.json"):
        config = OmegaConf.load(path.parent / ".hydra" / "config.yaml")
        if config.task != "fit":
            continue
        result = json.loads(path.read_text())
        assert result["validation"]["monitor"] == "validation/loss"
        found[path.parent.name] = (config.optim.new_rate, result["validation"]["best"])
    return found


@pytest.mark.slow
def test_a_killed_search_resumes_to_the_same_result(run_py, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    # Three steps, with a validation and a checkpoint after each.
    words = (*RATES, "trainer.validations_per_epoch=3", "hydra.sweeper.trials=4")
    outcome = run_py(*words, cwd=whole)
    assert outcome.returncode == 0, outcome.stderr
    assert "Best of 4 points" in outcome.stdout

    # In the second point, after its first checkpoint.
    killed = run_py("in_a_fit", *words, cwd=broken, script=KILLED)
    assert killed.returncode == -9, killed.stderr
    assert [t.state for t in study(broken).trials] == [TrialState.COMPLETE, TrialState.RUNNING]
    done = points(broken)
    outcome = run_py(*words, cwd=broken)
    assert outcome.returncode == 0, outcome.stderr
    assert points(broken).items() >= done.items()
    assert points(broken) == points(whole)
    assert [t.params for t in study(broken).trials] == [t.params for t in study(whole).trials]
    assert len({t.params["optim.new_rate"] for t in study(broken).trials}) == 4
    best = OmegaConf.load(broken / "runs" / "multirun" / "s" / "search.yaml")
    assert best.value == min(value for _, value in points(whole).values())

    outcome = run_py(*words, cwd=broken)  # all is known
    assert outcome.returncode == 0, outcome.stderr
    assert len(study(broken).trials) == 4


@pytest.mark.parametrize(
    ("varied", "monitor", "named"),
    [
        (["data.limit_validation=2,4"], "validation/rouge1", "data.limit_validation' was requested, but its points"),
        (["data=xsum,cnn_dailymail"], "validation/loss", "on different validation texts"),
        (
            ["data.max_target_length=8,16"],
            "validation/loss",
            "only over the same labels. Set trainer.monitor=validation",
        ),
    ],
)
def test_points_whose_scores_cannot_be_compared_are_refused(varied, monitor, named, run_py, tmp_path):
    outcome = run_py(*SEARCH, f"trainer.monitor={monitor}", "trainer.monitor_mode=max", *varied, cwd=tmp_path)
    assert (outcome.returncode, outcome.stdout) == (2, "")
    assert named in outcome.stderr


@pytest.mark.slow
def test_a_search_ends_when_every_point_was_tried_and_retries_failed_ones(run_py, tmp_path):
    words = (*SEARCH, "hydra.sweeper.trials=9", "trainer.validations_per_epoch=0,1", "decoder=bert,gpt2")
    for launched in (5, 2):  # four points and the evaluation of the best one; the failed ones again
        outcome = run_py(*words, cwd=tmp_path)
        assert outcome.returncode == 1, outcome.stderr
        assert "4 jobs, 2 failed" in outcome.stdout
        assert "Traceback" not in outcome.stderr
        assert outcome.stderr.count("Launching 1 jobs") == launched
        assert "they differ in 'decoder'" in outcome.stderr  # whose losses are not comparable
        # As where the sampler repeats itself: two trials, and yet one point to try again.
        failed = next(t for t in study(tmp_path).trials if t.state is TrialState.FAIL)
        study(tmp_path).add_trial(failed)
    complete = [t for t in study(tmp_path).trials if t.state is TrialState.COMPLETE]
    assert sorted(t.params["decoder"] for t in complete) == ["bert", "gpt2"]


@pytest.mark.slow
def test_every_rank_of_a_trial_has_its_parameters(run_py, tmp_path):
    ranks = ("trainer.devices=2", "trainer.strategy=ddp", "encoder=bert", "decoder=bert")
    outcome = run_py(*RATES, *ranks, "hydra.sweeper.trials=3", cwd=tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    found = points(tmp_path)
    assert len(found) == 3
    for job, (rate, value) in found.items():
        log = (tmp_path / "runs" / "multirun" / "s" / job / "cli.log").read_text()
        assert f"2 ranks, each with config {job}" in log
        assert any(t.params == {"optim.new_rate": rate} and t.value == value for t in study(tmp_path).trials)


ODD = ["a?b", "a#b", "a%41", "{SCHEMA_VERSION}", "{x}", "a?mode=memory", "x:y@z", "a b&c", "a\nb", "\u0939", "\udcff"]


def sweeper(storage=None):
    return SimpleNamespace(
        storage=storage, config=OmegaConf.create({"trainer": {"monitor_mode": "min", "monitor": "m"}})
    )


@pytest.mark.parametrize(
    ("space", "embeddings", "unsure"),
    [
        ({"decoder": ["bert", "gpt2"]}, "own", "decoder"),
        ({"encoder": ["bert", "roberta"]}, "own", None),
        ({"encoder": ["bert", "roberta"]}, "copy", "encoder"),  # the decoder writes with the encoder's tokenizer
        ({"bridge.embeddings": ["own", "copy"]}, "own", "bridge.embeddings"),
        ({"bridge": ["default", "copied_embeddings"]}, "own", "bridge"),
        ({"bridge": ["default", "share"]}, "own", None),
    ],
)
def test_points_that_may_have_other_labels_are_warned_of(space, embeddings, unsure, caplog):
    config = OmegaConf.create(
        {
            "trainer": {"monitor": "validation/loss"},
            "bridge": {"embeddings": embeddings},
            "decoder": {"model_type": "bert"},
        }
    )
    _check_comparable({key: CategoricalDistribution(choices) for key, choices in space.items()}, config)
    assert ([record.args[1] for record in caplog.records] == [f"{unsure!r}"]) if unsure else not caplog.records


@pytest.mark.parametrize("name", ODD)
def test_the_study_is_in_its_folder_whatever_the_name(name, tmp_path):
    folder, space = tmp_path / name, {"x": IntDistribution(1, 3)}
    folder.mkdir()
    trial = _study(sweeper(), folder, space, has_flock=True).ask(space)
    (again,) = _study(sweeper(), folder, space, has_flock=True).trials
    assert again.params == trial.params
    assert [file.name for file in folder.iterdir()] == ["search.db"]
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize(
    "url",
    [
        *(
            "foo",
            "journal.log",
            "nosuch://x",
            "redis://h",
            "sqlite:///{a}.db",
            "sqlite://host:port/x",
            "sqlite:////no/x",
        ),
        *("postgresql://me:secret@127.0.0.1:1/x", "mysql://me:secret@h/x", "postgresql+psycopg2://me:secret@[::1/x"),
        "mysql://h/x?password=secret",
    ],
)
def test_a_storage_that_does_not_work_is_named_without_its_password(url, tmp_path):
    with pytest.raises(UserError, match=r"hydra\.sweeper\.storage=.* cannot be used") as refused:
        _study(sweeper(url), tmp_path, {}, has_flock=True)
    assert "secret" not in str(refused.value)
    assert url.partition(":")[0] in str(refused.value)


@pytest.mark.parametrize(
    "foreign",
    [
        {"optim.new_rate": FloatDistribution(0.1, 9.0)},
        {"data.path": CategoricalDistribution(["${oc.env:HOME}"])},
    ],
)
def test_trials_of_another_space_do_not_run(foreign, tmp_path):
    """A trial's parameters become overrides of a command line, so a foreign study could add some."""
    space = {"optim.new_rate": FloatDistribution(0.1, 0.2)}
    study = _study(sweeper(), tmp_path, space, has_flock=True)
    study.ask(space)
    _study(sweeper(), tmp_path, space, has_flock=True)
    study.ask(foreign)
    with pytest.raises(UserError, match=r"trial 1 .* outside of the configured space"):
        _study(sweeper(), tmp_path, space, has_flock=True)


def test_a_damaged_study_is_named(tmp_path):
    (tmp_path / "search.db").write_bytes(b"no database" * 100)
    with pytest.raises(UserError, match=r"search\.db cannot be read or written \(.*not a database"):
        _study(sweeper(), tmp_path, {}, has_flock=True)


def test_a_mistake_in_the_space_ends_in_one_message(run_py, tmp_path):
    for words, said in (
        ((), "no option varies"),
        (("hydra.sweeper.sampler=nope", "seed=1,2"), "Set tpe or random"),
    ):
        outcome = run_py(*SEARCH, *words, cwd=tmp_path)
        assert outcome.returncode == 2
        assert said in outcome.stderr
        assert "Traceback" not in outcome.stderr


@pytest.mark.slow
def test_only_the_best_run_is_scored_on_the_test_split_and_only_once(run_py, tmp_path):
    folder = tmp_path / "runs" / "multirun" / "s"

    def scored():
        """The jobs with a test score, and when that was written."""
        written = {path: json.loads(path.read_text()) for path in folder.glob("*/result.json")}
        return {
            path.parent.name: (path.stat().st_mtime_ns, result["checkpoint"]["sha256"])
            for path, result in written.items()
            if any(name.startswith("test/") for name in result["metrics"])
        }

    words = (*RATES, "hydra.sweeper.trials=2")
    outcome = run_py(*words, cwd=tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    best = OmegaConf.load(folder / "search.yaml")
    winner = json.loads((folder / best.run / "result.json").read_text())
    assert winner["validation"]["best"] == best.value == min(value for _, value in points(tmp_path).values())
    first = scored()
    assert list(first) == [f"evaluate-{study(tmp_path).best_trial.number}"]
    assert [sha256 for _, sha256 in first.values()] == [winner["checkpoint"]["sha256"]]
    assert "Test ROUGE-1 of the best run: " in outcome.stdout
    assert "Looks at its test split: 1." in outcome.stdout
    assert "Points are compared by validation/loss. The test split is scored once, at the end" in outcome.stderr
    trials = [json.loads(path.read_text()) for path in folder.glob("*/result.json") if path.parent.name not in first]
    assert [trial["test_looks"] for trial in trials if trial["checkpoint"] != winner["checkpoint"]] == [0]
    assert winner["test_looks"] == 1
    assert all("validation/rouge1_ci" in trial["metrics"] and trial["baselines"] for trial in trials)
    evaluated = json.loads((folder / next(iter(first)) / "result.json").read_text())
    assert evaluated["metrics"]["validation/rouge1"] == winner["metrics"]["validation/rouge1"]
    assert "test ROUGE-1" not in outcome.stdout.partition("Sweep ")[2]
    outcome = run_py(*words, cwd=tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    assert scored() == first
    outcome = run_py(*words, "name=t", "evaluation.test=true", "hydra.sweeper.trials=1", cwd=tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    folder = folder.with_name("t")
    assert [path.parent.name for path in folder.glob("*/result.json")] == list(scored())
