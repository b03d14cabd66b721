"""Ids name the rows of predictions and reports, so every example of a split has an id of its own."""

import csv
import json

import datasets
import pytest

from warmstart.config.data import DataKind, DataSettings, OnBadRow, SplitSettings
from warmstart.data.sources.base import SPLITS
from warmstart.data.sources.load import load_source


def ids_of(rows, folder, *, split="test", **options):
    """Ids of a split of a saved data set whose splits all have these columns."""
    names = range(len(next(iter(rows.values()))))
    texts = {"document": [f"text {i}" for i in names], "summary": [f"title {i}" for i in names]}
    sets = {one: datasets.Dataset.from_dict(texts | rows) for one in SPLITS}
    datasets.DatasetDict(sets).save_to_disk(folder)
    source = load_source(DataSettings(name="x", kind=DataKind.hub, path=str(folder), **options))
    examples = list(source.split(split))
    assert [source.split(split)[i] for i in range(len(examples))] == examples
    return [example.id for example in examples]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (["a", "b", "c"], ["a", "b", "c"]),
        (["a", "a", "b"], ["a", "a-1", "b"]),
        (["a", "a", "a-1", "a"], ["a", "a-1-1", "a-1", "a-3"]),  # no new id is that of another row
        ([7, 8, 7], ["7", "8", "7-2"]),
        ([None, "b", None, ""], ["", "b", "2", "3"]),
        (["", None, "x"], ["", "1", "x"]),
    ],
)
def test_a_repeated_id_of_the_hub_gets_its_row_number(given, wanted, tmp_path):
    assert ids_of({"id": given}, tmp_path / "x") == wanted


def test_ids_of_joined_and_nested_columns_are_unique_too(tmp_path):
    rows = {"part": ["a", "a", "a"], "about": [{"no": "1"}, {"no": "2"}, {"no": "1"}]}
    assert ids_of(rows, tmp_path / "x", id_column="about.no") == ["1", "2", "1-2"]
    assert ids_of(rows, tmp_path / "y", id_column="part + about.no", join="/") == ["a/1", "a/2", "a/1-2"]


def test_rows_that_are_left_out_rename_no_other(tmp_path):
    rows = {"id": ["a", "a", "b", "b"], "document": [" ", "text", "text", "text"]}
    assert ids_of(rows, tmp_path / "x", on_bad_row=OnBadRow.skip) == ["a", "b", "b-3"]


def test_new_ids_are_the_same_for_every_limit_and_in_every_run(tmp_path):
    rows = {"id": [f"{i % 7}" for i in range(40)]}
    every = ids_of(rows, tmp_path / "x")
    assert len(set(every)) == 40
    options = {"name": "x", "kind": DataKind.hub, "path": str(tmp_path / "x")}
    few = load_source(DataSettings(limit_test=9, **options)).split("test")
    assert [example.id for example in few] == [every[int(example.document.split()[1])] for example in few]
    again = load_source(DataSettings(**options)).split("test")
    assert [example.id for example in again] == every


def test_only_repeats_within_one_split_are_renamed(tmp_path):
    rows = {
        "id": [f"{i % 90}" for i in range(100)],
        "document": [f"text {i}" for i in range(100)],
        "summary": ["x"] * 100,
    }
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "x")
    splits = SplitSettings(validation=None, test=None)
    source = load_source(DataSettings(name="x", kind=DataKind.hub, path=str(tmp_path / "x"), splits=splits))
    for split in SPLITS:
        found = [example.id for example in source.split(split)]
        plain = [str(int(example.document.split()[1]) % 90) for example in source.split(split)]
        assert len(set(found)) == len(found)
        assert [one.split("-")[0] for one in found] == plain
        assert sum("-" in one for one in found) == len(plain) - len(set(plain))


def test_repeated_ids_of_original_files_are_unique(tmp_path):
    for role in ("document", "summary"):
        (tmp_path / "xsum" / role).mkdir(parents=True)
        for i in range(4):
            (tmp_path / "xsum" / role / f"{i}.{role}").write_text(f"{role} {i}")
    ids = {"train": ["0"], "validation": ["1"], "test": ["2", "3", "2"]}
    (tmp_path / "xsum" / "XSum-TRAINING-DEV-TEST-SPLIT-90-5-5.json").write_text(json.dumps(ids))
    examples = load_source(DataSettings(name="x", kind=DataKind.hub, path=str(tmp_path / "xsum"))).split("test")
    assert [(example.id, example.document[-1]) for example in examples] == [("2", "2"), ("3", "3"), ("2-2", "2")]


def test_repeated_article_ids_of_news_are_unique(tmp_path):
    days = ["2017/1/1"] * 36 + ["2017/1/2"] * 2 + ["2017/1/3"] * 2
    with (tmp_path / "news.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["article_id", "publish_date", "title", "subtitle", "text"])
        for i, day in enumerate(days):
            text = " ".join(f"word{i}x{k}" for k in range(60))
            writer.writerow(["5" if i >= 38 else str(100 + i), day, f"title {i} of news", "", text])
    settings = DataSettings(name="n", kind=DataKind.news, path=str(tmp_path / "news.csv"), summary_column="title")
    assert [example.id for example in load_source(settings).split("test")] == ["5", "5-1"]
