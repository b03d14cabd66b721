"""For any content of a file, each row is used, or counted and logged, or the run ends with file and row named."""

import gzip
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
from warmstart.data.sources import bad_rows, csv_rows, json_rows, opened, tables
from warmstart.data.sources import parquet as parquet_reader
from warmstart.data.sources.base import SPLITS, Example
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
    for reader in (bad_rows, json_rows, csv_rows, tables):
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


@pytest.mark.parametrize("layout", ["records", *PANDAS])
@pytest.mark.parametrize("policy", OnBadRow)
def test_every_layout_of_pandas_gives_the_same_rows(layout, policy, tmp_path):
    (tmp_path / "x.json").write_text(json.dumps(PANDAS.get(layout, TABLE)))
    names = {"document_column": "0", "summary_column": "1"} if layout == "values" else {}
    found = everything(load(tmp_path / "x.json", on_bad_row=policy, **names))
    assert sorted(found) == sorted(Example(str(i), *row.values()) for i, row in enumerate(TABLE))


@pytest.mark.parametrize("policy", OnBadRow)
def test_rows_without_names_have_numbered_columns(policy, tmp_path):
    (tmp_path / "x.json").write_text(json.dumps(PANDAS["values"]))
    with pytest.raises(UserError, match=r"document_column='document' is not a column of .* which has: '0', '1'"):
        load(tmp_path / "x.json", on_bad_row=policy)


@pytest.mark.parametrize("policy", OnBadRow)
def test_json_with_rows_under_a_key_is_named(policy, tmp_path):
    for value in ({"train": TABLE}, {"version": "1.0", "articles": TABLE}):
        (tmp_path / "x.json").write_text(json.dumps(value))
        with pytest.raises(UserError, match=rf"one object with lists of rows under '{list(value)[-1]}'"):
            load(tmp_path / "x.json", on_bad_row=policy)


CSV = {
    "semicolon": "document;summary\nText {0}, of it;Gist {0}\n",
    "sep": "sep=;\r\ndocument;summary\r\nText {0}, of it;Gist {0}\r\n",
    "tabs": "document\tsummary\nText {0}, of it\tGist {0}\n",
    "bars": "key|document|summary\nk{0}|Text {0}, of it|Gist {0}\n",
    "unusual": "document§summary\nText {0}, of it§Gist {0}\n",
    "blanks": 'document, "summary" ,x\n"Text {0}, of it", "Gist {0}",\n'.replace('" ,', '",'),
    "single quotes": "'document','summary'\n'Text {0}, of it','Gist {0}'\n",
    "byte order marks": '\ufeff\ufeff"document",summary\n"Text {0}, of it",Gist {0}\n',
    "blank lines": "\n\ndocument;summary\n\nText {0}, of it;Gist {0}\n",
}


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@pytest.mark.parametrize("form", CSV)
def test_any_form_of_csv_gives_the_same_rows(form, suffix, tmp_path):
    head, row, end = CSV[form].rpartition(CSV[form].splitlines(keepends=True)[-1])
    (tmp_path / f"x{suffix}").write_text(head + "".join(row.format(i) for i in range(12)) + end, newline="")
    found = {(example.document, example.summary) for example in everything(load(tmp_path / f"x{suffix}"))}
    assert found == {(f"Text {i}, of it", f"Gist {i}") for i in range(12)}


def test_the_delimiter_that_was_found_is_logged(tmp_path, caplog):
    (tmp_path / "x.csv").write_text(CSV["semicolon"].format(0) + "a;b\nc;d\ne;f\n")
    with caplog.at_level("INFO"):
        load(tmp_path / "x.csv")
    assert "x.csv: its columns are separated by ';' (data.delimiter)" in caplog.text


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("body;gist;key\na;b;c\n", {}, r"document_column='document' .* which has: 'body', 'gist', 'key'"),
        ("document;summary\na;b\n", {"delimiter": ","}, r"delimiter=',' .* separated by ';': 'document', 'summary'"),
        ("document;summary\na;b\n", {"delimiter": "||"}, r"data\.delimiter='\|\|' is not a single character"),
        ("document,summary\na;b\nc;d\n", {}, r"first line are separated by ',', those of line 2 by ';'"),
        ("document;summary\nan, unquoted;b;c\n", {}, r"line 2 has 3 cells for 2 columns \(separated by ';'\)"),
    ],
)
def test_a_wrong_delimiter_is_not_a_bad_row(text, options, message, tmp_path):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        load(tmp_path / "x.csv", **options)
    with pytest.raises(UserError, match=message):
        load(tmp_path / "x.csv", on_bad_row=OnBadRow.skip, **options)


@pytest.mark.parametrize("first", ['"a;b"', "a;b"])
def test_a_first_row_of_one_cell_is_a_bad_row_if_the_next_has_all(first, tmp_path):
    rows = "".join(f"Text {i},Gist {i}\n" for i in range(8))
    (tmp_path / "x.csv").write_text(f"document,summary\n{first}\n\n{rows}")
    source = load(tmp_path / "x.csv", on_bad_row=OnBadRow.skip)
    assert (len(everything(source)), source.report["skipped"]) == (8, 1)
    with pytest.raises(UserError, match="line 2 has 1 cells for 2 columns"):
        load(tmp_path / "x.csv")


def test_a_delimiter_that_is_set_is_used(tmp_path):
    rows = "".join(f"a;b {i}:c{i}\n" for i in range(5))
    (tmp_path / "x.csv").write_text("document:summary\n" + rows)
    assert sorted(e.document for e in everything(load(tmp_path / "x.csv", delimiter=":"))) == [
        f"a;b {i}" for i in range(5)
    ]
    (tmp_path / "y.csv").write_text("document\tsummary\n" + rows.replace(":", "\t"))
    assert everything(load(tmp_path / "y.csv", delimiter="tab"))


TYPES = {
    ".csv": lambda rows: "document,summary\n" + "".join(f"{row['document']},{row['summary']}\n" for row in rows),
    ".jsonl": lambda rows: "\n".join(json.dumps(row, ensure_ascii=False) for row in rows),
    ".json": lambda rows: json.dumps(rows, ensure_ascii=False),
}
COURT = [{"document": f"the court\u2019s text {i}", "summary": f"gist {i}"} for i in range(8)]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-8"])
@pytest.mark.parametrize("suffix", TYPES)
def test_encodings_and_gzip(suffix, encoding, tmp_path):
    content = TYPES[suffix](COURT).encode(encoding)
    (tmp_path / f"x{suffix}").write_bytes(content)
    (tmp_path / f"x{suffix}.gz").write_bytes(gzip.compress(content))
    for name in (f"x{suffix}", f"x{suffix}.gz"):
        found = everything(load(tmp_path / name, encoding=encoding))
        assert {example.document for example in found} == {row["document"] for row in COURT}
    if encoding == "utf-16":
        with pytest.raises(UserError, match=r"is UTF-16 text\. Set data\.encoding=utf-16"):
            load(tmp_path / f"x{suffix}")
    elif encoding == "cp1252":
        with pytest.raises(UserError, match=r"(line 2|line 1|row 1) has the byte 0x92 .* data\.encoding=cp1252"):
            load(tmp_path / f"x{suffix}")


def test_texts_with_a_windows_code_page(tmp_path):
    for i in range(4):
        (tmp_path / f"{i}.txt").write_bytes(f"the court\u2019s text {i}".encode("cp1252"))
        (tmp_path / f"{i}.summary.txt").write_bytes(b"gist")
    assert all("\u2019" in example.document for example in everything(load(tmp_path, encoding="cp1252")))
    with pytest.raises(UserError, match=r"data\.encoding='windows' is not an encoding of text"):
        load(tmp_path, encoding="windows")


def test_damaged_gzip_is_named(tmp_path, monkeypatch):
    packed = gzip.compress(TYPES[".csv"](COURT).encode() * 50)
    for content in (packed[:-20], b"document,summary\na,b\n"):
        (tmp_path / "x.csv.gz").write_bytes(content)
        with pytest.raises(UserError, match=r"x\.csv\.gz is not a complete gzip file"):
            load(tmp_path / "x.csv.gz")
    monkeypatch.setattr(opened, "FREE_BYTES", 2**10)
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(b"document,summary\n" + b"a,b\n" * 10**6))
    with pytest.raises(UserError, match=r"x\.csv\.gz unpacks to more than 100 times its size"):
        load(tmp_path / "x.csv.gz")


NESTED = [
    {
        "id": i,
        "translation": {"en": f"The house {i}.", "de": f"Das Haus {i}."},
        "turns": [{"who": "A", "text": f"Hello {i}"}, {"who": "B", "text": "Bye"}],
        "titles": [f"First {i}", "Second"],
    }
    for i in range(12)
]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize(
    ("document", "first"),
    [
        ("translation.en", "The house 0."),
        ("turns.text", "Hello 0 / Bye"),
        ("titles", "First 0 / Second"),
        ("titles.0", "First 0"),
        ("titles.0 + translation.en+turns.text", "First 0 / The house 0. / Hello 0 / Bye"),
    ],
)
def test_nested_and_joined_columns(document, first, suffix, tmp_path):
    path = tmp_path / f"x{suffix}"
    if suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(NESTED), path)
    else:
        path.write_text("\n".join(map(json.dumps, NESTED)))
    columns = {"document_column": document, "summary_column": "translation.de", "id_column": "id", "join": " / "}
    found = {example.id: example for example in everything(load(path, **columns))}
    assert found["0"] == Example("0", first, "Das Haus 0.")
    assert len(found) == 12
    with pytest.raises(UserError, match=r"which has: 'id', 'translation\.en', 'translation\.de', 'turns\.who'"):
        load(path, **columns | {"summary_column": "translation.fr" if suffix == ".jsonl" else "german"})


def test_no_message_lists_more_than_ten_names(tmp_path):
    (tmp_path / "wide.csv").write_text(",".join(f"column {i}" for i in range(5000)) + "\n" + ",".join("a" * 5000))
    for i in range(30):
        (tmp_path / f"{i}.html").write_text("")
    for path, last in ((tmp_path / "wide.csv", "'column 9' and 4990 more"), (tmp_path / "absent.csv", " and 22 more")):
        with pytest.raises(UserError, match=last) as found:
            load(path)
        assert len(str(found.value)) < 600 + 2 * len(str(tmp_path))


@pytest.mark.parametrize("name", ["part-{}.jsonl", "train-0000{}-of-00003.jsonl", "train/{}.jsonl.gz", "a={}/x.jsonl"])
def test_a_folder_of_shards_is_one_table(name, tmp_path):
    tmp_path /= "shards"  # next to the cache
    for i in range(3):
        path = tmp_path / name.format(i)
        path.parent.mkdir(exist_ok=True, parents=True)
        text = "\n".join(json.dumps({"document": f"text {i} {j}", "summary": "s", "id": f"{i}{j}"}) for j in range(5))
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    (tmp_path / "_SUCCESS").touch()
    found = everything(load(tmp_path, id_column="id"))
    assert {example.document for example in found} == {f"text {i} {j}" for i in range(3) for j in range(5)}
    assert load(tmp_path).report["read"] == 15
    pattern = tmp_path / name.replace("{}", "*")
    assert len(everything(load_source(DataSettings(name="x", kind=DataKind.files, train_path=str(pattern))))) == 15


def test_a_bad_row_of_a_shard_is_named_with_its_file(tmp_path):
    tmp_path /= "shards"
    tmp_path.mkdir()
    for name, second in (("a", "k1"), ("b", "k0")):
        rows = [{"document": "x", "summary": "s", "id": f"{name}0"}, {"document": "y", "summary": "s", "id": second}]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "b.jsonl").write_text("{")
    with pytest.raises(UserError, match=r"line 1 of 'b\.jsonl' is not valid JSON"):
        load(tmp_path)
    (tmp_path / "b.jsonl").write_text(json.dumps({"document": "z", "summary": "s", "id": "k1"}))
    with pytest.raises(UserError, match=r"line 1 of 'b\.jsonl' repeats the id of line 2 of 'a\.jsonl'"):
        load(tmp_path, id_column="id")


def test_a_missing_shard_and_a_mixed_folder_are_named(tmp_path):
    for i in (0, 2):
        (tmp_path / f"train-0000{i}-of-00003.jsonl").write_text(json.dumps(GOOD[i]))
    with pytest.raises(UserError, match=r"only 2 of 3 shards are there; missing: 'train-00001-of-00003'"):
        load(tmp_path)
    (tmp_path / "a.csv").write_text("document,summary\na,b\n")
    with pytest.raises(UserError, match=r"tables of several types"):
        load_source(DataSettings(name="x", kind=DataKind.files, train_path=str(tmp_path)))


def test_equal_documents_are_in_one_split_or_reported(tmp_path, caplog):
    rows = [{"document": f"text {i % 40}", "summary": f"s {i}"} for i in range(200)]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = load(tmp_path / "x.jsonl")
    split = {name: {example.document for example in source.split(name)} for name in SPLITS}
    assert sum(map(len, split.values())) == 40
    assert "also" not in caplog.text
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, [*rows[:7], {"document": "new", "summary": "s"}])))
    source = load(tmp_path / "x.jsonl", test_path=str(tmp_path / "test.jsonl"))
    in_train = sum(example.document in {e.document for e in source.split("train")} for example in source.split("test"))
    assert in_train >= 5
    assert f"{in_train} of 8 test documents are also training documents" in caplog.text
    assert source.report["test_documents_in_train"] == in_train


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
    shared = {"validation_documents_in_train": 1, "test_documents_in_train": 1}
    assert counts["reader"] == {"read": 10, "kept": 10, "skipped": 0} | shared


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
