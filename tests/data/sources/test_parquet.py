"""Parquet files as sound writers make them, and files that claim or hold more than they may."""

import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from warmstart.data.sources import parquet
from warmstart.data.sources.bad_rows import BadText
from warmstart.data.sources.tables import Table
from warmstart.errors import UserError

ROWS = [{"id": i, "document": f"text {i} é" * (1 + i % 7), "summary": f"gist {i % 3}"} for i in range(300)]


def rows_of(path, wanted=("id", "document", "summary")):
    return [row for _, row in Table(path, "data.path", wanted).rows()]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
@pytest.mark.parametrize(
    "options",
    [
        {"use_dictionary": True, "row_group_size": 70},
        {"use_dictionary": False, "data_page_version": "2.0", "data_page_size": 100},
        {"use_dictionary": False, "column_encoding": {"document": "DELTA_BYTE_ARRAY"}, "compression": "none"},
        {"use_dictionary": False, "column_encoding": {"document": "DELTA_LENGTH_BYTE_ARRAY"}, "compression": "zstd"},
    ],
)
def test_every_kind_of_text_column_is_read(kind, options, tmp_path):
    table = pa.Table.from_pylist(ROWS)
    table = table.set_column(1, "document", table["document"].cast(kind))
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet", **options)
    assert rows_of(tmp_path / "x.parquet") == ROWS


@pytest.mark.parametrize("dictionary", [True, False])
def test_lists_of_lines_nulls_and_names_with_a_dot_are_read(dictionary, tmp_path):
    lines = [["a", None, ""], [], None, ["b" * 50]] * 50
    table = pa.table({"my.text": lines, "my": ["x", None] * 100, "other": [{"my": "y"}] * 200})
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet", use_dictionary=dictionary, data_page_size=100)
    found = rows_of(tmp_path / "x.parquet", ("my.text", "my"))
    assert [row["my.text"] for row in found] == lines
    assert [row["my"] for row in found] == ["x", None] * 100


def test_a_dictionary_is_read_and_lists_in_an_encoding_that_hides_their_length_are_refused(tmp_path):
    table = pa.Table.from_pylist(ROWS)
    table = table.set_column(1, "document", table["document"].dictionary_encode())
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet")
    assert rows_of(tmp_path / "x.parquet") == ROWS
    options = {"use_dictionary": False, "column_encoding": {"t.list.element": "DELTA_BYTE_ARRAY"}}
    pyarrow.parquet.write_table(pa.table({"t": [["a", "b"]]}), tmp_path / "x.parquet", **options)
    with pytest.raises(UserError, match=r"lists in a DELTA encoding.*Write the column t in another"):
        rows_of(tmp_path / "x.parquet", ("t",))


def test_an_absent_column_is_found_without_reading_rows(tmp_path):
    pyarrow.parquet.write_table(pa.Table.from_pylist(ROWS), tmp_path / "x.parquet")
    assert rows_of(tmp_path / "x.parquet", ("text",)) == [{"id": None, "document": None, "summary": None}]


@pytest.mark.parametrize("column", [[{"a": "b"}], [[["a"]]], [[1]], [b"a"], [[{"a": "b"}]]])
def test_a_column_of_other_things_than_texts_is_named_with_its_type(column, tmp_path):
    pyarrow.parquet.write_table(pa.table({"document": column}), tmp_path / "x.parquet")
    with pytest.raises(UserError, match=r"the column document holds (struct|list|binary).*, not text"):
        rows_of(tmp_path / "x.parquet", ("document",))


def test_a_row_that_is_too_long_is_one_bad_row(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "MAX_ROW_BYTES", 1000)
    lists = [["a" * 100] * 20, ["b"], None]
    pyarrow.parquet.write_table(pa.table({"t": ["a" * 2000, "b", "c" * 999]}), tmp_path / "x.parquet")
    pyarrow.parquet.write_table(pa.table({"t": lists}), tmp_path / "lists.parquet")
    for name, after in (("x", [{"t": "b"}, {"t": "c" * 999}]), ("lists", [{"t": ["b"]}, {"t": None}])):
        first, *others = rows_of(tmp_path / f"{name}.parquet", ("t",))
        assert isinstance(first, BadText)
        assert others == after


@pytest.mark.parametrize(
    "column",
    [
        pa.nulls(6_000_000),
        pa.nulls(6_000_000, pa.string()),
        pa.ListArray.from_arrays([0, 6_000_000], pa.nulls(6_000_000, pa.string())),
    ],
)
def test_nulls_count(column, tmp_path):
    pyarrow.parquet.write_table(pa.table({"t": column}), tmp_path / "x.parquet")
    assert (tmp_path / "x.parquet").stat().st_size < 100_000
    with pytest.raises(UserError, match=r"unpacks to more than 100 times its size|has a page of \d+ MiB"):
        rows_of(tmp_path / "x.parquet", ("t",))


def test_a_page_that_claims_more_than_it_holds_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(pa.table({"t": ["a" * 300]}), path, use_dictionary=False, compression="gzip")
    whole = path.read_bytes()
    column = pyarrow.parquet.read_metadata(path).row_group(0).column(0)
    with path.open("rb") as file:
        header, _ = parquet._header(file, column.data_page_offset)
    assert header[2] == 310
    # Two bytes as a varint of Thrift; 2,000,000,000 has five, so the footer moves and says where it now begins.
    at = whole.index(_varint(header[2]), column.data_page_offset)
    footer = len(whole) - 8 - struct.unpack("<i", whole[-8:-4])[0]
    path.write_bytes(whole[:at] + _varint(2_000_000_000) + whole[at + 2 : footer] + whole[footer:])
    with pytest.raises(UserError, match=r"has a page of 1907 MiB; the limit is 128 MiB"):
        rows_of(path, ("t",))


def _varint(number):
    number, found = number << 1, []
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def test_any_bytes_in_the_place_of_a_page_header_end_in_a_message(tmp_path):
    path = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(pa.Table.from_pylist(ROWS), path)
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(whole)
        at = int(random.integers(4, 60))
        damaged[at : at + 8] = random.bytes(8)
        path.write_bytes(damaged)
        try:
            rows_of(path)
        except UserError as error:
            assert "x.parquet" in str(error)  # noqa: PT017
