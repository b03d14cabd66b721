"""``data.path=my.csv`` without ``data=`` is read as the user's own file, and is never looked up on the hub."""

import pytest

from warmstart.config.own_files import with_own_files
from warmstart.tasks.check import faults


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder: a table, a file without suffix, a folder of texts, and a folder in the layout of the hub."""
    monkeypatch.chdir(tmp_path)
    for name in ("my.csv", "plain", "texts/a.txt", "hub/README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("document,summary\na b c,a\n")


@pytest.mark.parametrize(
    "words",
    [
        ["data.path=my.csv"],
        ["task=check", "data.path=absent.JSONL"],
        ["data.path=absent.csv.gz"],
        ["data.path=absent.xlsx"],
        ["data.path='my file.tsv'", "debug=tiny"],
        ["+data.path=plain"],
        ["data.path=texts"],
        ["-m", "data.path=my.csv,other.csv", "seed=1,2"],
    ],
)
def test_a_file_without_a_choice_of_data_is_the_users_own(words, here):
    found = with_own_files(words)
    assert "data=files" in found
    assert [word for word in found if word != "data=files"] == words


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["data.path=abisee/cnn_dailymail"],
        ["data.path=null"],
        ["data.path="],
        ["data.path=hub"],
        ["data.path=texts", "data.subset=default"],
        ["data=cnn_dailymail", "data.path=my.csv"],
        ["data=files", "data.path=my.csv"],
        ["experiment=headlines", "data.path=my.csv"],
        ["task=evaluate", "data.path=my.csv"],
        ["-m", "data.path=my.csv,hub"],
    ],
)
def test_no_other_command_line_changes(words, here):
    assert with_own_files(words) == words


def test_the_config_is_that_of_data_files(run_py, here, tmp_path):
    short = run_py("data.path=my.csv", "--cfg", "job", cwd=tmp_path)
    assert (short.returncode, short.stderr) == (0, "data.path names files of your own: data=files is set.\n")
    whole = run_py("data=files", "data.path=my.csv", "--cfg", "job", cwd=tmp_path)
    assert (whole.returncode, whole.stderr) == (0, "")
    assert short.stdout == whole.stdout


def test_a_file_for_a_data_set_of_the_hub_is_refused_with_the_words_to_type(settings_of, here):
    (fault,) = faults(settings_of("data=cnn_dailymail", "data.path=my.csv"))
    assert fault.endswith("Set data=files data.path=my.csv.")
    assert faults(settings_of("data=cnn_dailymail", "data.path=hub")) == []
