"""Stream the rows of a table file: jsonl, json, csv, tsv, parquet.

    for where, row in Table(path, "data.path").rows(): ...

``where`` is "line 7" or "row 7"; ``row`` is a dict of columns, or a ``BadText`` if the row cannot be used. Memory
does not grow with the number of rows, except for JSON that is neither a list of objects nor one object per line: that
is read whole.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from warmstart.data.sources.bad_rows import MAX_ROW_BYTES, BadText
from warmstart.data.sources.json_rows import MAX_JSON_BYTES, NO_OBJECT, NotAList, json_lines, json_list, json_row
from warmstart.data.sources.parquet import parquet_rows
from warmstart.errors import UserError, listed

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
_LEADING = 64  # number of first values of a JSON list, at least one of which must be an object
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}

Row = dict[str, Any] | BadText


class Table:
    """A table file.

    Args:
        path: The file.
        option: The option that the user set to the path, for messages.
        wanted: The columns to read; empty reads all. Formats that cannot skip columns return the others too.
    """

    def __init__(self, path: Path, option: str, wanted: Sequence[str] = ()) -> None:
        self.path, self.named, self._wanted = path, f"{option}={path}", wanted

    def rows(self) -> Iterator[tuple[str, Row]]:
        """Yield the location and the content of each row.

        Raises:
            UserError: The file as a whole cannot be read.
        """
        suffix = self.path.suffix.lower()
        if suffix not in SUFFIXES:
            raise UserError(f"{self.named} is not a supported type of file. Use one of: {', '.join(SUFFIXES)}.")
        if suffix == ".parquet":
            yield from parquet_rows(self.path, self.named, self._wanted)
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
                yield from json_lines(file)

    def _csv(self, delimiter: str) -> Iterator[tuple[str, Row]]:
        csv.field_size_limit(MAX_ROW_BYTES)  # Python's default of 128 KiB is too short for some articles
        with self.path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            lines = _Lines(file)
            reader = csv.reader(lines, delimiter=delimiter, strict=True)  # otherwise a stray quote swallows rows
            try:
                header = next(reader, [])
                self._check_delimiter(header, delimiter)
                _check_once(self.named, header, self._wanted)
                before = reader.line_num
                lines.taken = 0
                for cells in reader:
                    lines.taken = 0
                    where, before = f"line {before + 1}", reader.line_num
                    if not cells:
                        continue  # an empty line
                    row: Row = dict(zip(header, cells, strict=False))
                    if len(cells) != len(header):
                        row = BadText("wrong_cells", f"has {len(cells)} cells for {len(header)} columns")
                    yield where, row
            except csv.Error as error:
                raise UserError(
                    f"{self.named} is not valid CSV from line {reader.line_num} on: {error}. Look for an unclosed "
                    "quote: a cell that starts with a quote must end with one, and quotes inside it must be doubled."
                ) from error

    def _check_delimiter(self, header: list[str], delimiter: str) -> None:
        """Raise a UserError if the header lacks all wanted columns and another delimiter splits it into more cells."""
        if set(header) & set(self._wanted):
            return
        line = delimiter.join(header)
        other, skip = max(_DELIMITERS, key=line.count), ""
        if (given := line.lower().removeprefix("sep=")) in _DELIMITERS:  # some spreadsheets write this line first
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
        """Raise a UserError if JSON holds rows in an unsupported layout."""
        if layout := _pandas_layout(value, set(self._wanted)):
            raise UserError(
                f'{self.named} is JSON in the pandas layout orient="{layout}", not a list of objects. Save it with '
                'df.to_json(FILE, orient="records").'
            )
        if not isinstance(value, dict) or set(self._wanted) & value.keys():
            return
        lists = [name for name, rows in value.items() if isinstance(rows, list) and rows and _are(dict, rows)]
        if lists and lists != ["data"]:
            raise UserError(
                f"{self.named} is one object with lists of rows under {listed(lists)}. Write each list to its own "
                'file: [{"document": …, "summary": …}].'
            )

    def _json(self, file: BinaryIO) -> Iterator[tuple[str, Row]]:
        lines = (line.removeprefix(b"\xef\xbb\xbf").strip() for line in iter(lambda: file.readline(MAX_ROW_BYTES), b""))
        first = next(filter(None, lines), b"")
        several = isinstance(json_row(first), dict) and any(iter(lambda: file.read(2**16).strip(), b""))
        file.seek(0)
        if first.startswith(b"["):
            yield from self._json_list()
        # Many .json files hold one object per line.
        elif several:
            yield from json_lines(file)
        elif self.path.stat().st_size > MAX_JSON_BYTES:
            raise UserError(
                f"{self.named} holds more than {MAX_JSON_BYTES // 2**20} MiB of JSON that is neither a list of objects "
                "nor one object per line, so it cannot be streamed. Write one object per line and name it .jsonl."
            )
        else:
            yield from self._json_value(file)

    def _json_list(self) -> Iterator[tuple[str, Row]]:
        with self.path.open(encoding="utf-8-sig", errors="surrogateescape") as text:
            rows = json_list(text)
            try:
                # The first values show the layout of the whole list.
                leading = []
                for value in islice(rows, _LEADING):
                    leading.append(value)
                    if isinstance(value, dict):
                        break
                self._check_layout(leading)
                if leading and not isinstance(leading[-1], dict):
                    raise UserError(
                        f'{self.named} is JSON, but not a list of objects. Write [{{"document": …, "summary": …}}].'
                    )
                for number, row in enumerate(chain(leading, rows), 1):
                    yield f"row {number}", row if isinstance(row, dict) else BadText("not_json", NO_OBJECT)
            except NotAList as error:
                raise UserError(
                    f"{self.named}: {error}. Fix the file, or write one object per line as .jsonl."
                ) from None

    def _json_value(self, file: BinaryIO) -> Iterator[tuple[str, Row]]:
        try:
            value = json.loads(file.read().decode("utf-8-sig", "surrogateescape"))
        except (ValueError, RecursionError):
            file.seek(0)
            yield from json_lines(file)
            return
        self._check_layout(value)
        if isinstance(value, dict) and isinstance(value.get("data"), list):
            value = value["data"]
        if isinstance(value, dict) and value and all(isinstance(column, list) for column in value.values()):
            lengths = {name: len(column) for name, column in value.items()}
            if len(set(lengths.values())) > 1:
                found = listed(f"{name}: {length}" for name, length in lengths.items())
                raise UserError(f"{self.named}: its columns have different lengths: {found}. Fix the file.")
            rows: Iterable[Any] = (dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True))
        else:
            rows = value if isinstance(value, list) else [value]
            if rows and not any(isinstance(row, dict) for row in rows):
                raise UserError(
                    f'{self.named} is JSON, but not a list of objects. Write [{{"document": …, "summary": …}}].'
                )
        for number, row in enumerate(rows, 1):
            yield f"row {number}", row if isinstance(row, dict) else BadText("not_json", NO_OBJECT)


class _Lines:
    """The lines of a CSV file, with a limit on the length of the row being read.

    ``taken`` counts the characters of the current row; the caller sets it to 0 after each row.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.taken = 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._file.readline(MAX_ROW_BYTES)
        self.taken += len(line)
        # Many short cells, on many lines, can also make a row of unbounded length.
        if self.taken >= MAX_ROW_BYTES:
            raise csv.Error(f"the row is longer than {MAX_ROW_BYTES} bytes")
        if not line:
            raise StopIteration
        return line


def _pandas_layout(value: Any, wanted: set[str]) -> str | None:
    """Return pandas' name for the layout of a table in JSON; None if the layout is supported or unknown."""
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
            raise UserError(f"{named} has two columns named {name}. Rename one of them.")
