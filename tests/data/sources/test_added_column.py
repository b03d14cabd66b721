"""A copy of a table with one column more keeps every cell, and a bad row is found before anything is generated."""

import csv
import json

import pytest

from warmstart.config.data import OnBadRow
from warmstart.data.sources.added_column import AddedColumn
from warmstart.errors import UserError


def copied(path, policy=OnBadRow.fail, column="document"):
    """Write the copy next to the file, with the length of each document as its summary."""
    table = AddedColumn(path, "input", column, policy)
    copy = path.with_name(f"copy{path.suffix}")
    lines = [table.header(), *(table.line(row, str(len(document))) for row, document in table.rows())]
    copy.write_text("".join(lines), encoding="utf-8", newline="")
    assert len(lines) == table.count + 1
    return table, copy


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_every_cell_of_a_table_is_kept(suffix, tmp_path):
    delimiter = "," if suffix == ".csv" else "\t"
    rows = [["id", "document"], ["1", 'a, "b"\nc\td'], ["", "é\rf"], [" x ", "'"]]
    with (tmp_path / f"x{suffix}").open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    table, copy = copied(tmp_path / f"x{suffix}")
    with copy.open(encoding="utf-8", newline="") as file:
        found = list(csv.reader(file, delimiter=delimiter))
    assert found == [[*rows[0], "summary"], *([*row, str(len(row[1]))] for row in rows[1:])]
    assert (table.count, table.skipped) == (3, "")


def test_the_copy_has_the_delimiter_of_the_file(tmp_path):
    (tmp_path / "x.csv").write_text("sep=;\nid; document\n1; a, b\n")
    _, copy = copied(tmp_path / "x.csv")
    assert copy.read_text() == "id;document;summary\n1;a, b;4\n"


def test_every_value_of_json_lines_is_kept(tmp_path):
    rows = [{"document": "é", "n": 1.5, "more": {"a": [None, True]}}, {"document": ["a", "b"]}]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    _, copy = copied(tmp_path / "x.jsonl")
    found = [json.loads(line) for line in copy.read_text(encoding="utf-8").splitlines()]
    assert found == [rows[0] | {"summary": "1"}, rows[1] | {"summary": "3"}]
    assert "é" in copy.read_text(encoding="utf-8")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_column_that_is_taken_is_not_replaced(suffix, tmp_path):
    file = tmp_path / f"x{suffix}"
    file.write_text(
        "document,summary\na,b\n" if suffix == ".csv" else '{"document": "c"}\n{"document":"a","summary":1}'
    )
    assert copied(file)[0].name == "generated_summary"
    file.write_text(
        "document,summary,generated_summary\na,b,c\n"
        if suffix == ".csv"
        else '{"document": "c", "generated_summary": ""}\n{"document":"a","summary":1}'
    )
    with pytest.raises(UserError, match="has the columns summary and generated_summary already"):
        copied(file)


@pytest.mark.parametrize("policy", OnBadRow)
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_wrong_column_lists_the_columns(suffix, policy, tmp_path):
    (tmp_path / f"x{suffix}").write_text("text,title\na,b\n" if suffix == ".csv" else '{"text": "a", "title": "b"}')
    match = "data.document_column='document' is not a column of .*, which has: 'text', 'title'"
    if policy is OnBadRow.skip:
        match = "data.document_column='document' is not a column of"
    with pytest.raises(UserError, match=match):
        copied(tmp_path / f"x{suffix}", policy)


def test_a_bad_row_ends_the_task_or_is_left_out(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"document,other\na,b\n,empty\nc,\xff\nd,e\nf\n")
    with pytest.raises(UserError, match="line 3 has an empty document"):
        copied(tmp_path / "x.csv")
    table, copy = copied(tmp_path / "x.csv", OnBadRow.skip)
    assert copy.read_text() == "document,other,summary\na,b,1\nd,e,1\n"
    assert "3 of 5 rows skipped" in table.skipped
    assert "line 4 has bytes that are not UTF-8 in a column other than document" in table.skipped


def test_a_table_that_cannot_be_copied_is_refused(tmp_path):
    for content, match in [
        ("document,a,a\nx,y,z\n", "two columns named a"),
        ("document,a\n", "holds no rows"),
    ]:
        (tmp_path / "x.csv").write_text(content)
        with pytest.raises(UserError, match=match):
            copied(tmp_path / "x.csv")
    (tmp_path / "x.csv").write_text("document\n \n")
    with pytest.raises(UserError, match="1 of 1 rows skipped"):
        copied(tmp_path / "x.csv", OnBadRow.skip)
