"""All types of files, any column names, splits by hash, and helpful messages."""

import csv
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmstart.config.data import DataKind, DataSettings, OnBadRow
from warmstart.data.sources.base import Example
from warmstart.data.sources.files import split_off
from warmstart.data.sources.load import load_source
from warmstart.data.sources.row_store import hash64
from warmstart.data.sources.tables import Table
from warmstart.errors import UserError

ROWS = [{"key": f"k{i}", "body": f'Document "{i}",\nwith a second\u2028line.', "gist": f"Gist {i}."} for i in range(40)]
COLUMNS = {"document_column": "body", "summary_column": "gist"}


def load(**kwargs):
    return load_source(DataSettings(name="mine", kind=DataKind.files, **kwargs))


def write(path, rows):
    match path.suffix:
        case ".jsonl":
            path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n\n", encoding="utf-8")
        case ".json":
            path.write_text(json.dumps(rows), encoding="utf-8")
        case ".csv" | ".tsv":
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, rows[0], delimiter="\t" if path.suffix == ".tsv" else ",")
                writer.writeheader()
                writer.writerows(rows)
        case ".parquet":
            import pyarrow
            import pyarrow.parquet

            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return str(path)


def everything(source):
    return [example for name in ("train", "validation", "test") for example in source.split(name)]


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_all_types_of_files_give_the_same_examples(suffix, tmp_path):
    source = load(path=write(tmp_path / f"mine.{suffix}", ROWS), id_column="key", **COLUMNS)
    assert sorted(everything(source)) == sorted(Example(*row.values()) for row in ROWS)
    assert all(len(source.split(name)) for name in ("train", "validation", "test"))


@pytest.mark.parametrize(
    "text",
    [
        '{"data": [{"document": "a b", "summary": "a"}, REST]}',
        '{"document": ["a b", "c d", "e f"], "summary": ["a", "c", "e"]}',
        '{"document": "a b", "summary": "a"}\n{"document": "c d", "summary": "c"}\n{"document": "e f", "summary": "e"}',
        '[{"document": ["a", "b"], "summary": "a"}, REST]',
    ],
)
def test_shapes_of_json(text, tmp_path):
    rest = '{"document": "c d", "summary": "c"}, {"document": "e f", "summary": "e"}'
    (tmp_path / "x.json").write_text(text.replace("REST", rest))
    assert sorted(e.summary for e in everything(load(path=str(tmp_path / "x.json")))) == ["a", "c", "e"]


def test_named_splits_and_rows_numbered(tmp_path):
    paths = {
        f"{name}_path": write(tmp_path / f"{name}.csv", ROWS[i::3])
        for i, name in enumerate(("train", "validation", "test"))
    }
    source = load(**paths, **COLUMNS)
    assert [len(source.split(name)) for name in ("train", "validation", "test")] == [14, 13, 13]
    assert [e.id for e in source.split("test")][:3] == ["0", "1", "2"]
    assert source.split("test")[0].document == ROWS[2]["body"]


def test_folder_of_splits(tmp_path):
    for name in ("train", "dev", "test"):
        write(tmp_path / f"{name}.jsonl", [dict(row, gist=name) for row in ROWS[:3]])
    source = load(path=str(tmp_path), **COLUMNS)
    assert [source.split(name)[0].summary for name in ("train", "validation", "test")] == ["train", "dev", "test"]


def test_folder_of_texts(tmp_path):
    for i in range(6):
        (tmp_path / f"x{i}.txt").write_text(f"Document {i}.", encoding="utf-8")
        (tmp_path / f"x{i}.summary.txt").write_text(f"Summary {i}.", encoding="utf-8")
    examples = everything(load(path=str(tmp_path)))
    assert sorted(examples) == [Example(f"x{i}", f"Document {i}.", f"Summary {i}.") for i in range(6)]
    (tmp_path / "x3.summary.txt").unlink()
    with pytest.raises(UserError, match=r"1 of 6 documents have no summary.*x3\.txt"):
        load(path=str(tmp_path))


@given(st.lists(st.text(max_size=8), min_size=3, max_size=60, unique=True), st.randoms())
def test_split_off_is_a_partition_independent_of_order_and_copies(documents, random):
    def taken(texts):
        hashes = np.array([hash64(f"test\0{text}") for text in texts], dtype=np.uint64)
        mask = split_off(hashes, "test", DataSettings(name="x"))
        return {text for text, chosen in zip(texts, mask, strict=True) if chosen}

    first = taken(documents)
    assert 0 < len(first) < len(documents)
    shuffled = random.sample(documents, len(documents))
    assert taken([*shuffled, *shuffled[:2]]) == first


def test_split_off_takes_about_a_twentieth(tmp_path):
    rows = [{"document": f"text number {i}", "summary": "s"} for i in range(4000)]
    source = load(path=write(tmp_path / "x.jsonl", rows))
    assert all(150 < len(source.split(name)) < 250 for name in ("validation", "test"))


def test_rows_without_text_are_counted_and_skipped_on_request(tmp_path):
    rows = [*ROWS, {"key": "e", "body": "", "gist": "x"}, {"key": "f", "body": "x", "gist": "  "}]
    path = write(tmp_path / "x.jsonl", rows)
    source = load(path=path, on_bad_row=OnBadRow.skip, **COLUMNS)
    assert len(everything(source)) == len(ROWS)
    counts = {name: source.report[name] for name in ("read", "kept", "skipped")}
    assert counts == {"read": 42, "kept": 40, "skipped": 2}
    assert (source.report["skipped_empty_document"], source.report["skipped_empty_summary"]) == (1, 1)
    with pytest.raises(UserError, match=r"x\.jsonl: line 41 has an empty document.*data\.on_bad_row=skip"):
        load(path=path, **COLUMNS)


def test_cleaning_does_not_change_references(tmp_path):
    rows = [{"document": f"(CNN) -- Text {i}", "summary": f"NEW: Gist {i}"} for i in range(30)]
    source = load(path=write(tmp_path / "x.jsonl", rows), clean=["strip_cnn_dateline", "strip_new_marker"])
    assert all(e.document.startswith("Text") for e in everything(source))
    assert all(e.summary.startswith("Gist") for e in source.split("train"))
    assert all(e.summary.startswith("NEW: ") for e in [*source.split("test"), *source.split("validation")])


def test_long_csv_field(tmp_path):
    rows = [{"document": f"{i} " + "word " * 60_000, "summary": "s"} for i in range(3)]
    assert len(everything(load(path=write(tmp_path / "x.csv", rows)))) == 3


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({}, r"no path is set.*data\.path"),
        ({"path": "{tmp}/none.csv"}, r"data\.path=.*none\.csv does not exist.*mine\.csv"),
        ({"train_path": "{tmp}/none/x.csv"}, r"data\.train_path=.*the folder does not exist"),
        (
            {"path": "{tmp}/mine.csv"},
            r"data\.document_column='document' is not a column of .*which has: 'key', 'body', 'gist'",
        ),
        ({"path": "{tmp}/mine.csv", "document_column": "body"}, r"data\.summary_column='summary' is not a column"),
        ({"path": "{tmp}/mine.csv", **COLUMNS, "id_column": "uid"}, r"data\.id_column='uid' is not a column"),
        (
            {"path": "{tmp}/mine.csv", **COLUMNS, "id_column": "gist"},
            r"line \d repeats the id of line 2",
        ),
        ({"path": "{tmp}/empty.jsonl"}, "holds no rows"),
        ({"path": "{tmp}/blank.jsonl"}, "line 1 has an empty document"),
        ({"path": "{tmp}/broken.jsonl"}, r"line 2 is not valid JSON"),
        ({"path": "{tmp}/list.json"}, "not a list of objects"),
        ({"path": "{tmp}/latin.csv"}, r"latin\.csv: line 2 has the byte 0xe9 in its document, which is not UTF-8"),
        ({"path": "{tmp}/bad.parquet"}, "not a readable parquet"),
        ({"path": "{tmp}/x.docx"}, r"not a supported type of file.*\.jsonl"),
        ({"path": "{tmp}/one.jsonl"}, "are too few to split off"),
        ({"path": "{tmp}/hollow"}, "no text files"),
        ({"path": "{tmp}/trainless"}, "no train file"),
    ],
)
def test_mistakes(kwargs, message, tmp_path):
    write(tmp_path / "mine.csv", [dict(row, gist="Same.") for row in ROWS[:3]])
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "blank.jsonl").write_text('{"document": " ", "summary": null}')
    (tmp_path / "broken.jsonl").write_text('{"document": "a", "summary": "b"}\n{"document": \n')
    (tmp_path / "list.json").write_text('["a", "b"]')
    (tmp_path / "latin.csv").write_bytes("document,summary\ncaf\xe9,x\n".encode("latin1"))
    (tmp_path / "bad.parquet").write_text("no parquet")
    (tmp_path / "x.docx").write_text("x")
    (tmp_path / "one.jsonl").write_text('{"document": "a", "summary": "b"}')
    (tmp_path / "hollow").mkdir()
    (tmp_path / "trainless").mkdir()
    write(tmp_path / "trainless" / "test.jsonl", ROWS[:2])
    with pytest.raises(UserError, match=message):
        load(**{name: value.replace("{tmp}", str(tmp_path)) for name, value in kwargs.items()})


@pytest.fixture
def changing(tmp_path, monkeypatch):
    """A file with ``contents[0]`` that changes to the next contents whenever it is read."""
    path = tmp_path / "rows.jsonl"
    read = Table.rows

    def start(contents, *, restored=False):
        write(path, contents[0])
        later = list(contents[1:])

        def rows(self):
            if changes := bool(later):
                write(path, later.pop(0))
            yield from read(self)
            if changes and restored:
                write(path, contents[0])

        monkeypatch.setattr(Table, "rows", rows)
        return str(path)

    return start


@pytest.mark.parametrize("restored", [False, True])
def test_a_file_that_changes_while_it_is_read_is_read_again(restored, changing, tmp_path):
    first, second = ([dict(row, gist=f"{name} reading") for row in ROWS] for name in ("first", "second"))
    path = changing([first, second], restored=restored)
    now = "first" if restored else "second"
    assert {example.summary for example in everything(load(path=path, **COLUMNS))} == {f"{now} reading"}
    for rows, name in ((first, "first"), (second, "second")):
        write(tmp_path / "rows.jsonl", rows)
        assert {example.summary for example in everything(load(path=path, **COLUMNS))} == {f"{name} reading"}


def test_a_file_that_changes_whenever_it_is_read_is_refused(changing):
    path = changing([[dict(row, gist=f"{i}") for row in ROWS] for i in range(9)])
    with pytest.raises(UserError, match=r"rows\.jsonl changed while it was read, 3 times"):
        load(path=path, **COLUMNS)
