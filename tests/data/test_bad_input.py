"""For any content of a file, each row is used, or counted and logged, or the run ends with file and row named."""

import json
import math
import os
import zipfile

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from warmstart.config.data import DataKind, DataSettings, OnBadRow
from warmstart.data.datamodule import SummarizationDataModule
from warmstart.data.sources import bad_rows, json_rows, tables
from warmstart.data.sources import parquet as parquet_reader
from warmstart.data.sources.base import SPLITS
from warmstart.data.sources.load import load_source
from warmstart.data.sources.news import read_news
from warmstart.data.sources.tables import SUFFIXES
from warmstart.errors import UserError

GOOD = [{"id": f"k{i}", "document": f"document {i}", "summary": f"summary {i}"} for i in range(6)]
any_text = st.one_of(st.text(max_size=5), st.sampled_from(["", " ", "a\0b", "\ud800", "\udce9", "é\u2028", "a" * 2000]))
any_value = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), any_text),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(any_text, inner, max_size=3)),
    max_leaves=4,
)
any_row = st.one_of(
    any_value,
    st.fixed_dictionaries({}, optional={"document": any_value, "summary": any_value, "id": any_value}),
    st.fixed_dictionaries({"document": any_text, "summary": any_text, "id": st.sampled_from(["k1", "x", "y", 7])}),
)
# A longer run, for a maintainer: FUZZ_EXAMPLES=2000 python -m pytest tests/data/test_bad_input.py
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "60"))
many = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def load(path, **options):
    return load_source(DataSettings(name="mine", kind=DataKind.files, path=str(path), **options))


def everything(source):
    return [example for name in SPLITS for example in source.split(name)]


def usable(row):
    """A second, simpler implementation of the rule."""

    def sound(value):
        value = "\n".join(value) if isinstance(value, list) and all(isinstance(v, str) for v in value) else value
        if not isinstance(value, str) or not value.strip() or "\0" in value:
            return False
        return not any("\ud800" <= mark <= "\udfff" for mark in value)

    if not isinstance(row, dict) or not sound(row.get("document")) or not sound(row.get("summary")):
        return False
    name = row.get("id")
    return (isinstance(name, int) and not isinstance(name, bool)) or sound(name)


@many
@given(st.lists(any_row, max_size=8), st.sampled_from([".jsonl", ".json"]))
def test_every_row_is_used_or_counted_and_the_first_bad_one_is_named(tmp_path, rows, suffix):
    rows = [*GOOD, *rows]
    path = tmp_path / f"x{suffix}"
    path.write_text(json.dumps(rows) if suffix == ".json" else "\n".join(map(json.dumps, rows)))
    good, names, bad = [], set(), []
    for number, row in enumerate(rows, 1):
        name = str(row["id"]) if usable(row) else None
        if isinstance(row, dict) and isinstance(row.get("id"), list) and name is not None:
            name = "\n".join(row["id"])
        (bad if name is None or name in names else good).append(number)
        names.add(name)
    source = load(path, on_bad_row=OnBadRow.skip, id_column="id")
    assert len(everything(source)) == len(good) == source.report["kept"]
    assert source.report["skipped"] == len(bad) == len(rows) - source.report["kept"]
    assert source.report["read"] == len(rows) == sum(source.report[f"{name}_read"] for name in SPLITS) + len(bad)
    kinds = {name: n for name, n in source.report.items() if name.startswith("skipped_")}
    assert sum(kinds.values()) == len(bad)
    if bad:
        with pytest.raises(UserError, match=rf"x\{suffix}.* (line|row) ({'|'.join(map(str, bad))}) (has|is|repeats) "):
            load(path, id_column="id")


@many
@given(st.binary(max_size=300), st.sampled_from(SUFFIXES), st.sampled_from(list(OnBadRow)), st.booleans())
def test_any_bytes_are_read_or_the_error_names_the_file(tmp_path, content, suffix, policy, tail):
    path = tmp_path / f"x{suffix}"
    head = b"" if suffix == ".parquet" else b"document,summary\na,b\nc,d\ne,f\ng,h\n" if suffix == ".csv" else b""
    path.write_bytes(content if tail else head + content)
    try:
        source = load(path, on_bad_row=policy)
    except UserError as error:
        assert f"x{suffix}" in str(error) or "are too few to split off" in str(error)  # noqa: PT017
    else:
        assert source.report["read"] == source.report["kept"] + source.report["skipped"]


@pytest.fixture(scope="module")
def parquet(tmp_path_factory):
    path = tmp_path_factory.mktemp("parquet") / "x.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(GOOD * 40), path, compression="gzip")
    return path.read_bytes()


@many
@given(st.data())
def test_a_damaged_parquet_file_is_read_or_the_error_names_it(tmp_path, parquet, data):
    damaged = bytearray(parquet[: data.draw(st.integers(0, len(parquet)))] if data.draw(st.booleans()) else parquet)
    for _ in range(data.draw(st.integers(0, 4))):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "x.parquet").write_bytes(damaged)
    try:
        source = load(tmp_path / "x.parquet", on_bad_row=OnBadRow.skip)
    except UserError as error:
        assert "x.parquet" in str(error) or "are too few to split off" in str(error)  # noqa: PT017
    else:
        assert source.report["read"] == source.report["kept"] + source.report["skipped"]


def parquet_of(path, column):
    pyarrow.parquet.write_table(pyarrow.table({"document": column, "summary": ["s"] * len(column)}), path)


def test_decompression_bombs_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_reader, "FREE_BYTES", 2**20)
    one = tmp_path / "one.parquet"
    long = pyarrow.table({"document": ["a" * 2**24], "summary": ["s"]})
    pyarrow.parquet.write_table(long, one, compression="gzip", use_dictionary=False)
    assert one.stat().st_size < 2**17
    # A dictionary stores the text once, and the file does not state the unpacked size.
    many_times = tmp_path / "many.parquet"
    parquet_of(many_times, ["".join(map(str, range(10_000)))] * 5000)
    assert many_times.stat().st_size < 2**17
    for path in (one, many_times):
        with pytest.raises(UserError, match=rf"{path.name} unpacks to more than 100 times its size"):
            load(path)
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("NewsArticles.csv", "a" * 2**27)
    with pytest.raises(UserError, match=r"bomb\.zip holds more than 64 MiB"):
        read_news(DataSettings(name="news", kind=DataKind.news, path=str(bomb), summary_column="title"))


def test_a_row_of_unbounded_length_is_one_bad_row(tmp_path, monkeypatch):
    for reader in (bad_rows, json_rows, tables):
        monkeypatch.setattr(reader, "MAX_ROW_BYTES", 1000)
    lines = [json.dumps(row) for row in GOOD]
    lines.insert(2, json.dumps({"document": "a" * 5000, "summary": "s"}))
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"x\.jsonl: line 3 is longer than 1000 bytes"):
        load(tmp_path / "x.jsonl")
    source = load(tmp_path / "x.jsonl", on_bad_row=OnBadRow.skip)
    assert (source.report["kept"], source.report["skipped_too_long"]) == (6, 1)
    (tmp_path / "x.csv").write_text('document,summary\n"never closed,x\n' + "text,s\n" * 500)
    with pytest.raises(UserError, match=r"x\.csv is not valid CSV from line \d+ on.*quote"):
        load(tmp_path / "x.csv", on_bad_row=OnBadRow.skip)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", b"document,summary\nan unquoted, comma,s\n", r"line 2 has 3 cells for 2 columns"),
        ("x.csv", b"document,summary\nalone\n", r"line 2 has 1 cells for 2 columns"),
        ("x.tsv", b'document\tsummary\na\t"He left\nb\ts\nc\t"Gone" too\n', r"is not valid CSV.*quote"),
        ("x.csv", b'document,summary\na,s\nb,"never closed\nc,s\n', r"is not valid CSV.*quote"),
        ("x.csv", b"document,document,summary\na,b,c\n", r"has two columns named document"),
        ("x.csv", "document,summary\na,b\n".encode("utf-16"), r"is UTF-16 text"),
        ("x.jsonl", b"[" * 200_000, r"line 1 is not valid JSON"),
        ("x.json", b"[" * 200_000, r"row 1 is not valid JSON"),
        ("x.jsonl", b'{"document": ' + b"9" * 9000 + b', "summary": "s"}', r"line 1 is not valid JSON"),
        ("x.jsonl", '{"document": "\xe9t\xe9", "summary": "s"}'.encode("latin1"), r"line 1 has the byte 0xe9"),
        ("x.jsonl", rb'{"document": "a\ud83d", "summary": "s"}', r"line 1 has an unpaired surrogate \(U\+D83D\)"),
        ("x.jsonl", rb'{"document": "a\u0000", "summary": "s"}', r"line 1 has a NUL character in its document"),
        (
            "x.jsonl",
            b'{"document": {"text": "a"}, "summary": "s"}',
            r"has a document that is not text but an object with the keys 'text'",
        ),
        ("x.jsonl", b'{"document": "a"}', r"data\.summary_column='summary' is not a column"),
        ("x.json", b'{"document": ["a", "b"], "summary": ["s"]}', r"columns have different lengths"),
    ],
)
def test_mistakes_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}.*{message}|{message}.*{name}"):
        load(tmp_path / name)


TABLE = [{"document": f"text number {i} of the set", "summary": f"gist {i}"} for i in range(12)]
PANDAS = {
    "columns": {name: {str(i): row[name] for i, row in enumerate(TABLE)} for name in TABLE[0]},
    "index": {str(i): row for i, row in enumerate(TABLE)},
    "split": {"columns": list(TABLE[0]), "index": list(range(12)), "data": [list(row.values()) for row in TABLE]},
    "values": [list(row.values()) for row in TABLE],
}


@pytest.mark.parametrize("layout", PANDAS)
@pytest.mark.parametrize("policy", OnBadRow)
def test_an_unsupported_pandas_layout_is_named_with_the_supported_one(layout, policy, tmp_path):
    (tmp_path / "x.json").write_text(json.dumps(PANDAS[layout]))
    with pytest.raises(UserError, match=rf'orient="{layout}", not a list of objects.*orient="records"'):
        load(tmp_path / "x.json", on_bad_row=policy)


@pytest.mark.parametrize("policy", OnBadRow)
def test_json_with_rows_under_a_key_is_named(policy, tmp_path):
    for value in ({"train": TABLE}, {"version": "1.0", "articles": TABLE}):
        (tmp_path / "x.json").write_text(json.dumps(value))
        with pytest.raises(UserError, match=rf"one object with lists of rows under '{list(value)[-1]}'"):
            load(tmp_path / "x.json", on_bad_row=policy)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.csv", "document;summary\nText 0, of the set;Gist\n", r"separated by semicolons.*sep=';'.*to_json"),
        ("x.csv", "sep=;\r\ndocument;summary\r\na, b;c\r\n", r"separated by semicolons.*sep=';', skiprows=1\)"),
        ("x.csv", "body;gist;key\na;b;c\n", r"separated by semicolons"),
        ("x.csv", "document\tsummary\nText 0, of the set\tGist\n", r"separated by tabs.*Name it \.tsv"),
        ("x.tsv", "document,summary\na,b\n", r"separated by commas.*Name it \.csv"),
        ("x.csv", "document, summary\na, b\n", r"which has: 'document', ' summary'"),
        ("x.csv", "\ufeff\ufeffdocument,summary\na,b\n", r"which has: '\\ufeffdocument', 'summary'"),
    ],
)
def test_missing_columns_are_named_with_the_reason(name, text, message, tmp_path):
    (tmp_path / name).write_text(text, newline="")
    with pytest.raises(UserError, match=message):
        load(tmp_path / name)


def test_another_encoding_is_named_with_the_command_that_converts_it(tmp_path):
    (tmp_path / "x.csv").write_bytes("document,summary\nthe court\u2019s set,s\n".encode("cp1252"))
    with pytest.raises(UserError, match=r"line 2 has the byte 0x92 .* iconv -f WINDOWS-1252 -t UTF-8"):
        load(tmp_path / "x.csv")


def test_no_message_lists_more_than_ten_names(tmp_path):
    (tmp_path / "wide.csv").write_text(",".join(f"column {i}" for i in range(5000)) + "\n" + ",".join("a" * 5000))
    for i in range(30):
        (tmp_path / f"{i}.html").write_text("")
    for path, last in ((tmp_path / "wide.csv", "'column 9' and 4990 more"), (tmp_path / "absent.csv", " and 22 more")):
        with pytest.raises(UserError, match=last) as found:
            load(path)
        assert len(str(found.value)) < 600 + 2 * len(str(tmp_path))


@pytest.mark.parametrize("where", [".", "train"])
def test_a_folder_of_shards_is_described(where, tmp_path):
    (tmp_path / where).mkdir(exist_ok=True)
    for i in range(3):
        parquet_of(tmp_path / where / f"part-{i}.parquet", ["a"])
    with pytest.raises(UserError, match=r"holds 3 \.parquet files such as 'part-0\.parquet', but no text files"):
        load(tmp_path)


def test_a_long_document_is_cut_and_counted(tmp_path, pair):
    rows = [*GOOD, {"document": "word " * 100_000, "summary": "sum " * 1000}, {"document": "x" * 10**6, "summary": "s"}]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name in ("validation", "test"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(GOOD[0]))
    options = DataSettings(name="mine", kind=DataKind.files, path=str(tmp_path), max_source_length=100)
    counts = SummarizationDataModule(options, pair, seed=0).row_counts()
    assert counts["train"] == {
        **{"read": 8, "kept": 8, "skipped": 0, "sampled": False},
        **{"truncated_documents": 1, "truncated_summaries": 1},
    }
    assert counts["reader"] == {"read": 10, "kept": 10, "skipped": 0}


def test_a_second_run_reports_what_the_first_skipped(tmp_path, caplog):
    lines = [*map(json.dumps, GOOD), "no json"]
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    reports = []
    for _ in range(2):
        reports.append(load(tmp_path / "x.jsonl", on_bad_row=OnBadRow.skip).report)
        assert "x.jsonl: 1 of 7 rows skipped (data.on_bad_row=skip): line 7 is not valid JSON" in caplog.text
        caplog.clear()
    assert reports[0] == reports[1]


def test_links_to_outside_the_folder_are_not_followed(tmp_path):
    (tmp_path / "private.txt").write_text("private")
    (tmp_path / "private.jsonl").write_text("\n".join(map(json.dumps, GOOD)))
    texts, parts = tmp_path / "texts", tmp_path / "parts"
    texts.mkdir()
    parts.mkdir()
    for i in range(4):
        (texts / f"{i}.txt").write_text(f"document {i}")
        (texts / f"{i}.summary.txt").write_text("summary")
    assert len(everything(load(texts))) == 4
    (texts / "x.txt").symlink_to(tmp_path / "private.txt")
    (texts / "x.summary.txt").write_text("summary")
    (parts / "train.jsonl").symlink_to(tmp_path / "private.jsonl")
    for folder in (texts, parts):
        with pytest.raises(UserError, match=r"is a link to .*private.* outside the folder"):
            load(folder, on_bad_row=OnBadRow.skip)
    assert len(everything(load(tmp_path / "private.jsonl"))) == 6
    assert everything(load_source(DataSettings(name="x", kind=DataKind.files, train_path=str(parts / "train.jsonl"))))


HEADER = "article_id,publish_date,title,subtitle,text\n"


@many
@given(st.lists(st.lists(st.text(alphabet='0123456789/ ,\n\0x"', max_size=12), max_size=6), max_size=4))
def test_any_news_rows_are_read_or_the_error_names_them(tmp_path, cells):
    body = "word " * 60
    good = "".join(f'{i},2017/1/{i},"A title of words {i}",,"{i} {body}"\n' for i in range(1, 28))
    (tmp_path / "news.csv").write_text(HEADER + good + "\n".join(",".join(row) for row in cells), encoding="utf-8")
    options = {"name": "news", "kind": DataKind.news, "path": str(tmp_path / "news.csv"), "summary_column": "title"}
    _, counts = read_news(DataSettings(**options, on_bad_row=OnBadRow.skip))
    assert counts["read"] == counts["kept"] + counts["skipped"]
    assert counts["rows"] == counts["kept"] >= 25
    if counts["skipped"]:
        with pytest.raises(UserError, match=r"news\.csv: row 2\d|news\.csv: row \d+ lacks a date"):
            read_news(DataSettings(**options))


def test_sentences_of_a_long_reference_are_split_in_linear_time():
    from warmstart.evaluation.languages import LONG, split_line

    text = "A short one. " * 4000  # pysbd takes minutes for the whole text
    assert split_line(text) == ["A short one."] * 4000
    assert max(map(len, split_line("x" * (3 * LONG)))) <= LONG
    assert math.isclose(sum(map(len, split_line("x" * (3 * LONG)))), 3 * LONG)
