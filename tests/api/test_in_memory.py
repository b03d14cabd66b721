"""Texts in memory become a file that the reader of the user's own files reads: the same file for the same texts."""

import json
from pathlib import Path

import datasets
import pandas as pd
import pytest

from warmstart.api.in_memory import path_of
from warmstart.config.data import DataKind, DataSettings
from warmstart.data.sources.files import read_files
from warmstart.errors import UserError

ROWS = [{"text": f"Document {i} é\n2", "title": f"Summary {i}", "n": i} for i in range(60)]
COLUMNS = ("text", "title")


def written(tmp_path, texts, columns=COLUMNS):
    return Path(path_of(texts, "train", columns, str(tmp_path)))


def test_every_kind_of_texts_gives_the_same_file(tmp_path):
    pairs = [(row["text"], row["title"]) for row in ROWS]
    frame = pd.DataFrame(ROWS, index=range(5, 65))
    kinds = [pairs, iter(pairs), [list(pair) for pair in pairs], ROWS, frame, datasets.Dataset.from_list(ROWS)]
    (path,) = {written(tmp_path, texts) for texts in kinds}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert rows[1] == {"document": "Document 1 é\n2", "summary": "Summary 1"}
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_the_reader_reads_the_file(tmp_path):
    path = written(tmp_path, ROWS)
    settings = DataSettings(name="files", kind=DataKind.files, path=str(path), cache_dir=str(tmp_path / "cache"))
    splits, _ = read_files(settings)
    assert sum(map(len, splits.values())) == 60


def test_missing_values_are_left_to_the_reader(tmp_path):
    values = [None, float("nan"), pd.NA, pd.NaT, 3]
    path = written(tmp_path, [(f"text {i}", value) for i, value in enumerate(values)])
    assert [json.loads(line)["summary"] for line in path.read_text().splitlines()] == [None, None, None, None, 3]


def test_paths_are_not_written(tmp_path):
    assert path_of("a b.csv", "train", COLUMNS, str(tmp_path)) == "a b.csv"
    assert path_of(tmp_path / "x", "train", COLUMNS, str(tmp_path)) == str(tmp_path / "x")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (ROWS, "train has no column 'document', only 'text', 'title', 'n'. Set document_column."),
        (pd.DataFrame(ROWS), "train has no column 'document'"),
        (["one text"], r"Row 1 of train is a str. Pass \(document, summary\)"),
        ([("a", "b"), ("a", "b", "c")], "Row 2 of train is a tuple"),
        (5, "train is a int. Pass a path"),
    ],
)
def test_other_texts_are_refused_and_leave_no_file(tmp_path, texts, message):
    with pytest.raises(UserError, match=message):
        written(tmp_path, texts, ("document", "summary"))
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]
