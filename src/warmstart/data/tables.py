"""The rows of a table file, one at a time: jsonl, json, csv, tsv, parquet.

    for where, row in Table(path, "data.path").rows(): ...

``where`` is "line 7" or "row 7"; ``row`` is a dict of its columns, or a :class:`BadText` that says why it is none.
Memory does not grow with the number of rows, but for json, which is one value and is read whole.
"""

import csv
import json
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from warmstart.data.bad_rows import BadText
from warmstart.errors import UserError, listed, says_nothing_of_the_file

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
MAX_ROW_BYTES = 64 * 2**20
"""Longest row of a text file: 64 MiB, about ten million tokens. A quote that is never closed makes such rows."""
MAX_EXPANSION, FREE_BYTES = 100, 64 * 2**20
"""A compressed file may unpack to 100 times its size and 64 MiB more. Text unpacks to 3 times, a bomb to 1000."""
_PARQUET_ROWS = 64
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_NO_OBJECT = 'is no object such as {"document": …, "summary": …}'

Row = dict[str, Any] | BadText


class Table:
    """A table file; ``option`` is what the user named it by, ``wanted`` are the columns to read where that saves."""

    def __init__(self, path: Path, option: str, wanted: Sequence[str] = ()) -> None:
        self.path, self.named, self._wanted = path, f"{option}={path}", wanted

    def rows(self) -> Iterator[tuple[str, Row]]:
        """Where each row stands, and the row.

        Raises:
            UserError: the file as a whole cannot be read.
        """
        suffix = self.path.suffix.lower()
        if suffix not in SUFFIXES:
            raise UserError(f"{self.named} is no kind of file that can be read. Use one of: {', '.join(SUFFIXES)}.")
        if suffix == ".parquet":
            yield from self._parquet()
            return
        with self.path.open("rb") as file:
            if file.read(2) in (b"\xff\xfe", b"\xfe\xff"):
                raise UserError(f"{self.named} is UTF-16 text. Convert it: iconv -f UTF-16 -t UTF-8 FILE.")
            file.seek(0)
            if suffix in (".csv", ".tsv"):
                yield from self._csv("\t" if suffix == ".tsv" else ",")
            elif suffix == ".json":
                yield from self._json(file)
            else:
                yield from _json_lines(file)

    def _csv(self, delimiter: str) -> Iterator[tuple[str, Row]]:
        csv.field_size_limit(MAX_ROW_BYTES)  # Python's own limit, 128 KiB, is shorter than some articles
        with self.path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)  # else a stray quote swallows rows
            try:
                header = next(reader, [])
                self._check_delimiter(header, delimiter)
                _check_once(self.named, header, self._wanted)
                before = reader.line_num
                for cells in reader:
                    where, before = f"line {before + 1}", reader.line_num
                    if not cells:
                        continue  # an empty line
                    row: Row = dict(zip(header, cells, strict=False))
                    if len(cells) != len(header):
                        row = BadText("wrong_cells", f"has {len(cells)} cells under {len(header)} columns")
                    yield where, row
            except csv.Error as error:
                raise UserError(
                    f"{self.named}: from line {reader.line_num} on it is no csv: {error}. Look for a quote that is not "
                    "closed: a cell that begins with one has to end with one, and those inside are doubled."
                ) from error

    def _check_delimiter(self, header: list[str], delimiter: str) -> None:
        """Raise a UserError where another delimiter gives the first line more cells, and it has no wanted column."""
        if set(header) & set(self._wanted):
            return
        line = delimiter.join(header)
        other, skip = max(_DELIMITERS, key=line.count), ""
        if (given := line.lower().removeprefix("sep=")) in _DELIMITERS:  # a line that spreadsheets write first
            other, skip = given, ", skiprows=1"
        elif line.count(other) <= line.count(delimiter):
            return
        fix = {",": "Name it .csv.", "\t": "Name it .tsv."}.get(other)
        fix = fix or (
            "Save it with commas, or convert it: python -c \"import pandas; pandas.read_csv('FILE', "
            f"sep='{other}'{skip}).to_json('NEW.jsonl', orient='records', lines=True)\""
        )
        raise UserError(
            f"{self.named}: its columns are separated by {_DELIMITERS[other]}, but {self.path.suffix} is read with "
            f"{_DELIMITERS[delimiter]}. {fix}"
        )

    def _check_layout(self, value: Any) -> None:
        """Raise a UserError where json holds rows, but not as a list of objects or an object of columns."""
        if layout := _pandas_layout(value, set(self._wanted)):
            raise UserError(
                f'{self.named} is json as pandas writes it with orient="{layout}", not a list of objects. Write it '
                'again: df.to_json(FILE, orient="records").'
            )
        if not isinstance(value, dict) or set(self._wanted) & value.keys():
            return
        lists = [name for name, rows in value.items() if isinstance(rows, list) and rows and _are(dict, rows)]
        if lists and lists != ["data"]:
            raise UserError(
                f"{self.named} is one object, whose rows are under {listed(lists)}. Write each list into a file of its "
                'own: [{"document": …, "summary": …}].'
            )

    def _json(self, file: BinaryIO) -> Iterator[tuple[str, Row]]:
        try:
            value = json.loads(file.read().decode("utf-8-sig", "surrogateescape"))
        except (ValueError, RecursionError):  # many files named json hold one object a line
            file.seek(0)
            yield from _json_lines(file)
            return
        self._check_layout(value)
        if isinstance(value, dict) and isinstance(value.get("data"), list):
            value = value["data"]
        if isinstance(value, dict) and value and all(isinstance(column, list) for column in value.values()):
            lengths = {name: len(column) for name, column in value.items()}
            if len(set(lengths.values())) > 1:
                found = listed(f"{name}: {length}" for name, length in lengths.items())
                raise UserError(f"{self.named}: its columns are of different lengths: {found}. Fix the file.")
            value = [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)]
        rows = value if isinstance(value, list) else [value]
        if rows and not any(isinstance(row, dict) for row in rows):
            raise UserError(f'{self.named} is json, but no list of objects. Write [{{"document": …, "summary": …}}].')
        for number, row in enumerate(rows, 1):
            yield f"row {number}", row if isinstance(row, dict) else BadText("not_json", _NO_OBJECT)

    def _parquet(self) -> Iterator[tuple[str, Row]]:
        import pyarrow
        import pyarrow.parquet

        bound = MAX_EXPANSION * self.path.stat().st_size + FREE_BYTES
        number = unpacked = 0
        try:
            with pyarrow.parquet.ParquetFile(self.path) as file:
                names = file.schema_arrow.names
                _check_once(self.named, names, self._wanted)
                columns = [name for name in dict.fromkeys(self._wanted) if name in names]
                if len(columns) < len(set(self._wanted)) or any("." in name for name in columns):
                    columns = []
                groups = (file.metadata.row_group(i) for i in range(file.num_row_groups))
                declared = sum(max(group.total_byte_size, 0) for group in groups)
                if declared <= bound:
                    for batch in file.iter_batches(_PARQUET_ROWS, columns=columns or None):
                        if (unpacked := unpacked + batch.nbytes) > bound:
                            break
                        for row in _rows_of_batch(batch):
                            number += 1
                            yield f"row {number}", row
        # A damaged file may raise any of these; pyarrow's own errors are partly OSError and ValueError.
        except (pyarrow.ArrowException, OSError, ValueError, TypeError, KeyError, OverflowError, MemoryError) as error:
            if isinstance(error, OSError) and says_nothing_of_the_file(error):
                raise
            said = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"{self.named} is no readable parquet file: {said}. Write it again.") from error
        if max(declared, unpacked) > bound:
            raise UserError(
                f"{self.named} unpacks to more than {MAX_EXPANSION} times its size, which no text does. "
                "If it is sound all the same, write it without compression."
            )


def _pandas_layout(value: Any, wanted: set[str]) -> str | None:
    """The name that pandas has for the layout of a table in json, where that is not one that is read."""
    if isinstance(value, list):
        return "values" if value and _are(list, value) else None
    if not isinstance(value, dict):
        return None
    if isinstance(rows := value.get("data"), list) and "columns" in value and _are(list, rows):
        return "split"
    inner = list(value.values())
    if not inner or not _are(dict, inner):
        return None
    if any(wanted & row.keys() for row in inner):
        return "index"
    numbered = all(row and all(name.isdigit() for name in row) for row in inner)
    return "columns" if numbered or wanted & value.keys() else None


def _are(kind: type, values: Sequence[Any]) -> bool:
    return all(isinstance(value, kind) for value in values)


def _check_once(named: str, columns: Sequence[str], wanted: Sequence[str]) -> None:
    for name in wanted:
        if columns.count(name) > 1:
            raise UserError(f"{named}: the column {name} stands there twice. Rename one of them.")


def _rows_of_batch(batch: Any) -> list[Row]:
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:
        return [_row_of_batch(batch, i) for i in range(batch.num_rows)]


def _row_of_batch(batch: Any, i: int) -> Row:
    try:
        return batch.slice(i, 1).to_pylist()[0]
    except UnicodeDecodeError:
        return BadText("not_utf8", "holds bytes that are not UTF-8")


def _json_lines(file: BinaryIO) -> Iterator[tuple[str, Row]]:
    # Lines end at \n alone: json allows marks such as U+2028, where str.splitlines() also splits, inside a text.
    lines = iter(lambda: file.readline(MAX_ROW_BYTES), b"")
    first = next(lines, b"").removeprefix(b"\xef\xbb\xbf")
    for number, line in enumerate(chain([first], lines), 1):
        if len(line) == MAX_ROW_BYTES and not line.endswith(b"\n"):
            for rest in lines:
                if rest.endswith(b"\n"):
                    break
            yield f"line {number}", BadText("too_long", f"is longer than {MAX_ROW_BYTES} bytes")
        elif line.strip():
            yield f"line {number}", _json_row(line)


def _json_row(line: bytes) -> Row:
    try:
        row = json.loads(line.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError) as error:
        return BadText("not_json", f"is no json: {error}")
    return row if isinstance(row, dict) else BadText("not_json", _NO_OBJECT)
