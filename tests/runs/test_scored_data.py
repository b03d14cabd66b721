"""``task=evaluate`` scores the test split of the run's own file, and every row of another file."""

import json
import logging

import pytest
from hydra import compose, initialize_config_dir

from warmstart.cli.main import config_dir
from warmstart.config.data import DataKind
from warmstart.config.schema import to_settings
from warmstart.errors import UserError
from warmstart.runs.recorded import with_recorded
from warmstart.runs.run_dir import RunDir
from warmstart.runs.saved_model import SavedModel
from warmstart.runs.scored_data import data_to_score
from warmstart.tasks import evaluate, fit

NOT_READ = "data.baselines=[lead]"


class Recorded:
    """A saved model of which only the recorded settings are read."""

    def __init__(self, **data):
        self.config = {"data": data}


def write_rows(path, count, columns=("document", "summary")):
    path.parent.mkdir(exist_ok=True)
    rows = [{columns[0]: f"The river {i} rose by {i} metres.", columns[1]: f"River {i} rose."} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def files(tmp_path):
    """The file of a run (40 rows) and another one (12 rows)."""
    return write_rows(tmp_path / "mine.jsonl", 40), write_rows(tmp_path / "other.jsonl", 12)


@pytest.fixture
def of_run(tmp_path, settings_of):
    """Return a function that composes the settings of a task on a run, as the command line does."""

    def make(run, *words):
        words = [f"ckpt={run}", f"data.cache_dir={tmp_path / 'cache'}", *words]
        with initialize_config_dir(config_dir(), version_base="1.3"):
            return to_settings(with_recorded(compose("config", overrides=words), words))

    return make


def test_an_evaluation_scores_the_split_of_the_runs_file_and_all_rows_of_another(
    settings_of, of_run, files, tmp_path, caplog
):
    mine, other = files
    run = tmp_path / "run"
    words = ["data=files", f"data.path={mine}", "data.baselines=[lead,nearest]", "data.limit_test=3"]
    fit.run(settings_of("debug=tiny", *words), run)
    scored = RunDir(run).read_result()["metrics"]["test/examples"]
    assert scored <= 3

    def evaluated(name, *words):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            evaluate.run(of_run(run, *words), tmp_path / name, SavedModel(str(run)))
        return RunDir(tmp_path / name).read_result()

    for name, words in (("plain", []), ("same", [f"data.path={mine.parent}/../{mine.parent.name}/{mine.name}"])):
        result = evaluated(name, *words)
        assert result["metrics"] == RunDir(run).read_result()["metrics"]
        assert f"its test split is scored, {scored} rows" in caplog.text
    result = evaluated("other", f"data.path={other}")
    assert result["metrics"]["test/examples"] == 12
    assert result["rows"]["test"]["kept"] == 12
    assert f"data.path={other} is not the data of the run ({mine}): all 12 rows are scored." in caplog.text
    training = RunDir(run).read_result()["baselines"]["nearest"]["training_examples"]
    assert result["baselines"]["nearest"]["training_examples"] == training
    mine.unlink()
    with pytest.raises(UserError, match=r"mine.jsonl does not exist.* set data.baselines=\[lead\]"):
        evaluated("without", f"data.path={other}")
    assert evaluated("lead", f"data.path={other}", NOT_READ)["metrics"]["test/examples"] == 12


def test_a_validation_split_is_scored_without_the_test_split(settings_of, files, tmp_path):
    mine, other = files
    (tmp_path / "test.jsonl").write_text("not json")
    words = ("data=files", f"data.train_path={mine}", f"data.test_path={tmp_path / 'test.jsonl'}")
    _, source, _ = data_to_score(settings_of(*words), Recorded(train_path=str(mine)), [], "validation")
    assert source.names == ("train", "validation")
    with pytest.raises(
        UserError, match=r"evaluation\.test=false was set, but data\.path=.*other\.jsonl is not the data"
    ):
        data_to_score(settings_of("data=files", f"data.path={other}"), Recorded(path=str(mine)), [], "validation")


def test_the_files_of_the_runs_splits_do_not_hide_another_file(settings_of, files):
    mine, other = files
    words = ["data=files", f"data.train_path={mine}", f"data.test_path={mine}"]
    found, source, _ = data_to_score(settings_of(*words, f"data.path={other}"), Recorded(train_path=str(mine)), [])
    assert (len(source.split("test")), found.data.test_path) == (12, None)
    given = settings_of(*words, f"data.path={other}")
    assert len(data_to_score(given, Recorded(), ["data.test_path"])[1].split("test")) == 40


def test_the_log_names_the_file_that_is_scored(settings_of, files, caplog):
    mine, other = files
    for option, said in (("test", "is scored as the test split, 12 rows"), ("train", "its test split is scored, ")):
        with caplog.at_level(logging.INFO):
            named = f"data.{option}_path={other}"
            settings = settings_of("data=files", f"data.path={mine}", named)
            data_to_score(settings, Recorded(path=str(mine)), [f"data.{option}_path"])
        assert f"{named} {said}" in caplog.text.replace(":", "")
        assert f"data.path={mine}" not in caplog.text


def test_a_limit_of_the_command_line_holds(settings_of, files):
    settings = settings_of("data=files", f"data.path={files[1]}", "data.limit_test=5")
    assert len(data_to_score(settings, Recorded(), ["data.limit_test"])[1].split("test")) == 5


def test_a_folder_with_splits_keeps_them(settings_of, tmp_path):
    for name, count in (("train", 30), ("test", 7)):
        write_rows(tmp_path / "folder" / f"{name}.jsonl", count)
    settings = settings_of("data=files", f"data.path={tmp_path / 'folder'}")
    assert len(data_to_score(settings, Recorded(), [])[1].split("test")) == 7


def test_a_run_on_other_data_scores_a_file_by_its_own_columns(settings_of, files, tmp_path):
    recorded = Recorded(kind="short_descriptions", path="package_file:x/summaries.json")
    settings = settings_of("data=short_descriptions", f"data.path={files[1]}", NOT_READ, "data.max_source_length=77")
    found, source, training = data_to_score(settings, recorded, ["data.path"])
    assert (len(source.split("test")), len(training)) == (12, 0)
    assert (found.data.kind, found.data.name, found.data.max_source_length) == (DataKind.files, "files", 77)
    write_rows(tmp_path / "columns.csv", 0).write_text("text,description\na,b\n")
    settings = settings_of("data=short_descriptions", f"data.path={tmp_path / 'columns.csv'}", NOT_READ)
    with pytest.raises(UserError, match=r"data\.document_column='document' is not a column"):
        data_to_score(settings, recorded, ["data.path", "data.summary_column"])


def test_a_data_set_that_the_command_line_names_is_read_as_it_is(settings_of):
    settings = settings_of("data=written", "data.path=absent.csv")
    found, source, _ = data_to_score(settings, Recorded(path="x"), ["data", "data.path"])
    assert found is settings
    assert source.names == ("train", "validation", "test")
