"""Tables are read row by row: the memory that a hostile file may use, and unusual but valid files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from warmstart.data.sources import csv_rows, json_rows, tables
from warmstart.data.sources.bad_rows import MAX_ROW_BYTES, BadText
from warmstart.data.sources.tables import Table
from warmstart.errors import UserError

MIB = 2**20
# Maximum memory of reading beyond the imports; docs/reliability.md has the figures.
BOUND = 700 * MIB
READ = """
import resource, sys
import numpy, pyarrow.compute, pyarrow.parquet
from warmstart.config.data import DataKind, DataSettings, OnBadRow
from warmstart.data.sources.load import load_source
from warmstart.errors import UserError
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30,) * 2)
path, cache = sys.argv[1:]
before = peak()
try:
    load_source(DataSettings(name="x", kind=DataKind.files, path=path, cache_dir=cache, on_bad_row=OnBadRow.skip))
except UserError as error:
    print(error)
print(peak() - before)
"""


def _repeated(path, *parts):
    with path.open("w") as file:
        for text, times in parts:
            for _ in range(times // 4096):
                file.write(text * 4096)
            file.write(text * (times % 4096))


def _dictionary(path):
    long = pa.DictionaryArray.from_arrays(pa.array([0] * 64, pa.int32()), pa.array(["a" * 60 * MIB]))
    pyarrow.parquet.write_table(pa.table({"document": long, "summary": ["s"] * 64}), path, compression="zstd")


def _prefixes(path):
    texts = ["a" * MIB + str(i) for i in range(600)]
    encoding = {"document": "DELTA_BYTE_ARRAY", "summary": "PLAIN"}
    table = pa.table({"document": texts, "summary": ["s"] * 600})
    pyarrow.parquet.write_table(table, path, compression="zstd", use_dictionary=False, column_encoding=encoding)


HEAD = ("document,summary\n", 1)
HOSTILE = {
    "dictionary.parquet": (_dictionary, "unpacks to more than 100 times"),
    "prefixes.parquet": (_prefixes, "unpacks to more than 100 times"),
    "line.csv": (lambda path: _repeated(path, HEAD, ("a" * 1000, 800_000)), "the row is longer than"),
    "cells.csv": (lambda path: _repeated(path, HEAD, ('ab,"\n",', 20 * MIB)), "the row is longer than"),
    "row.jsonl": (
        lambda path: _repeated(path, ('{"document":[', 1), ("[],", 20 * MIB), ("[]]}\n", 1)),
        "is longer than",
    ),
    "list.json": (lambda path: _repeated(path, ("[", 1), ("[],", 40 * MIB), ("[]]", 1)), "not a list of objects"),
    "value.json": (
        lambda path: _repeated(path, ('{"a":\n[', 1), ("[],", 30 * MIB), ("[]]}", 1)),
        "more than 64 MiB",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_within_the_memory_limit(name, tmp_path):
    make, message = HOSTILE[name]
    make(tmp_path / name)
    command = [sys.executable, "-c", READ, str(tmp_path / name), str(tmp_path / "cache")]
    environment = {**os.environ, "PYTHONPATH": str(Path(tables.__file__).parents[3])}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 0, ended.stderr
    *printed, peak = ended.stdout.splitlines()
    assert message in "\n".join(printed)
    assert int(peak) < BOUND


def test_a_json_list_is_read_in_chunks_wherever_they_meet(tmp_path, monkeypatch):
    monkeypatch.setattr(json_rows, "_CHUNK", 7)
    rows = [{"a": 'é\U0001f600\\"]}' * (i % 5), "n": [-12.5e3, None, {"b": [i]}]} for i in range(40)]
    for indent in (None, 2):
        (tmp_path / "x.json").write_text(f" \n{json.dumps(rows, indent=indent, ensure_ascii=indent is None)}\n ")
        assert [row for _, row in Table(tmp_path / "x.json", "data.path").rows()] == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"a": 1}, {"a": 2', "row 2 is not valid JSON"),
        ('[{"a": 1} {"a": 2}]', "a comma .* missing after row 1"),
        ('[{"a": 1}', "a comma .* missing after row 1"),
        ('[{"a": 1},]', "row 2 is not valid JSON"),
        ('[{"a": 1}] x', "the list ends after row 1"),
        ("[1, 2]", "not a list of objects"),
    ],
)
def test_a_damaged_json_list_is_named_with_its_row(text, message, tmp_path):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError, match=rf"x\.json.*{message}"):
        list(Table(tmp_path / "x.json", "data.path").rows())


def test_json_of_one_object_per_line_is_read_despite_blank_lines(tmp_path):
    (tmp_path / "x.json").write_text('\ufeff\n\n{"a": 1}\n\n{"a": 2}\n')
    assert [row for _, row in Table(tmp_path / "x.json", "data.path").rows()] == [{"a": 1}, {"a": 2}]
    (tmp_path / "x.json").write_text('\n\n{"a": ["b", "c"]}\n  \n')
    assert [row for _, row in Table(tmp_path / "x.json", "data.path").rows()] == [{"a": "b"}, {"a": "c"}]


def test_a_row_of_a_million_keys_is_one_row(tmp_path):
    wide = {f"k{i}": 1 for i in range(1_000_000)}
    (tmp_path / "x.jsonl").write_text(json.dumps(wide) + "\n" + json.dumps({"a": 1}))
    found = [row for _, row in Table(tmp_path / "x.jsonl", "data.path").rows()]
    assert found == [wide, {"a": 1}]


def test_a_csv_row_may_have_many_lines_and_a_file_many_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_rows, "MAX_ROW_BYTES", 100)
    (tmp_path / "x.csv").write_text("document,summary\n" + '"a\nb\nc",s\n' * 100)
    assert len(list(Table(tmp_path / "x.csv", "data.path").rows())) == 100


def test_a_text_file_that_is_too_long_is_one_bad_row(tmp_path):
    from warmstart.data.sources.files import read_text

    (tmp_path / "x.txt").write_bytes(b"a" * (MAX_ROW_BYTES + 1))
    with pytest.raises(BadText, match="is longer than"):
        read_text(tmp_path / "x.txt")
    (tmp_path / "x.txt").write_bytes(b"\xef\xbb\xbfa\r\nb\rc\xe9")
    assert read_text(tmp_path / "x.txt") == "a\nb\nc\udce9"
