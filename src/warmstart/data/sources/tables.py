"""Stream the rows of a table file: jsonl, json, csv, tsv, parquet; all but parquet also packed by gzip.

    for where, row in Table(path, "data.path").rows(): ...

``where`` is "line 7" or "row 7"; ``row`` is a dict of columns, or a ``BadText`` if the row cannot be used. Memory
does not grow with the number of rows, except for JSON that is neither a list of rows nor one object per line: that
is read whole.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from warmstart.data.sources.bad_rows import MAX_ROW_BYTES, BadText
from warmstart.data.sources.columns import Columns
from warmstart.data.sources.csv_rows import Dialect, csv_rows, find_dialect
from warmstart.data.sources.json_layouts import pandas_rows
from warmstart.data.sources.json_rows import MAX_JSON_BYTES, NO_OBJECT, NotAList, json_lines, json_list, json_row
from warmstart.data.sources.opened import GZIP, TextFile
from warmstart.data.sources.parquet import parquet_rows
from warmstart.errors import UserError, listed

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
PACKED = tuple(f"{suffix}{GZIP}" for suffix in SUFFIXES if suffix != ".parquet")
_LEADING = 64  # number of first values of a JSON list, at least one of which must be an object
_NO_LIST = 'is JSON, but not a list of objects. Write [{"document": …, "summary": …}].'

Row = dict[str, Any] | BadText


def table_suffix(path: Path) -> str:
    """Return the suffix of a table file, such as ``.csv`` or ``.csv.gz``; empty for another file."""
    name = path.name.lower()
    return next((suffix for suffix in (*PACKED, *SUFFIXES) if name.endswith(suffix)), "")


class Table:
    """A table file.

    Args:
        path: The file.
        option: The option that the user set to the path, for messages.
        wanted: The columns to read; empty reads all. Formats that cannot skip columns return the others too.
        delimiter: ``data.delimiter``.
        encoding: ``data.encoding``.
    """

    def __init__(
        self,
        path: Path,
        option: str,
        wanted: Sequence[str] = (),
        *,
        delimiter: str | None = None,
        encoding: str = "utf-8",
    ) -> None:
        self.path, self.named = path, f"{option}={path}"
        self._wanted = [Columns(spec) for spec in wanted]
        self._delimiter, self._encoding = delimiter, encoding

    def rows(self) -> Iterator[tuple[str, Row]]:
        """Yield the location and the content of each row.

        Raises:
            UserError: The file as a whole cannot be read.
        """
        suffix = table_suffix(self.path).removesuffix(GZIP)
        if not suffix:
            raise UserError(
                f"{self.named} is not a supported type of file. Use one of: {', '.join(SUFFIXES)}, or with {GZIP} all "
                "but parquet."
            )
        if suffix == ".parquet":
            yield from parquet_rows(self.path, self.named, self._wanted)
            return
        opened = TextFile(self.path, self.named, self._encoding)
        if suffix in (".csv", ".tsv"):
            dialect = self.dialect()
            with opened.text(newline="") as file:
                yield from csv_rows(file, self.named, self._wanted, dialect)
        elif suffix == ".json":
            yield from self._json(opened)
        else:
            with opened.binary() as lines:
                yield from json_lines(lines)

    def dialect(self, *, report: bool = True) -> Dialect:
        """Find out how the cells of a csv or tsv file are written.

        Args:
            report: Whether to log an unusual delimiter.
        """
        usual = "\t" if table_suffix(self.path).startswith(".tsv") else ","
        with TextFile(self.path, self.named, self._encoding).text(newline="") as file:
            return find_dialect(file, self.named, self._wanted, self._delimiter, usual, report=report)

    def _check_layout(self, value: Any) -> None:
        """Raise a UserError if JSON holds lists of rows under keys."""
        if not isinstance(value, dict) or any(columns.tops(list(value)) for columns in self._wanted):
            return
        lists = [name for name, rows in value.items() if isinstance(rows, list) and rows and _are(dict, rows)]
        if lists and lists != ["data"]:
            raise UserError(
                f"{self.named} is one object with lists of rows under {listed(lists)}. Write each list to its own "
                'file: [{"document": …, "summary": …}].'
            )

    def _json(self, opened: TextFile) -> Iterator[tuple[str, Row]]:
        with opened.binary() as file:
            lines = (
                line.removeprefix(b"\xef\xbb\xbf").strip() for line in iter(lambda: file.readline(MAX_ROW_BYTES), b"")
            )
            first = next(filter(None, lines), b"")
            several = isinstance(json_row(first), dict) and any(iter(lambda: file.read(2**16).strip(), b""))
        if first.startswith(b"["):
            yield from self._json_list(opened)
            return
        with opened.binary() as file:
            # Many .json files hold one object per line.
            if several:
                yield from json_lines(file)
                return
            content = file.read(MAX_JSON_BYTES + 1)
        if len(content) > MAX_JSON_BYTES:
            raise UserError(
                f"{self.named} holds more than {MAX_JSON_BYTES // 2**20} MiB of JSON that is neither a list of objects "
                "nor one object per line, so it cannot be streamed. Write one object per line and name it .jsonl."
            )
        yield from self._json_value(content, opened)

    def _json_list(self, opened: TextFile) -> Iterator[tuple[str, Row]]:
        with opened.text() as text:
            rows = json_list(text)
            try:
                # The first values show the layout of the whole list.
                leading = []
                for value in islice(rows, _LEADING):
                    leading.append(value)
                    if isinstance(value, dict):
                        break
                is_values = bool(leading) and all(isinstance(value, list) and value for value in leading)
                if leading and not is_values and not isinstance(leading[-1], dict):
                    raise UserError(f"{self.named} {_NO_LIST}")
                for number, row in enumerate(chain(leading, rows), 1):
                    yield f"row {number}", _numbered(row) if is_values else _object(row)
            except NotAList as error:
                raise UserError(
                    f"{self.named}: {error}. Fix the file, or write one object per line as .jsonl."
                ) from None

    def _json_value(self, content: bytes, opened: TextFile) -> Iterator[tuple[str, Row]]:
        try:
            value = json.loads(content.decode("utf-8-sig", "surrogateescape"))
        except (ValueError, RecursionError):
            with opened.binary() as file:
                yield from json_lines(file)
            return
        rows: Iterable[Any] | None = pandas_rows(value, self._wanted)
        if rows is None:
            self._check_layout(value)
            if isinstance(value, dict) and isinstance(value.get("data"), list):
                value = value["data"]
            if isinstance(value, dict) and value and all(isinstance(column, list) for column in value.values()):
                lengths = {name: len(column) for name, column in value.items()}
                if len(set(lengths.values())) > 1:
                    found = listed(f"{name}: {length}" for name, length in lengths.items())
                    raise UserError(f"{self.named}: its columns have different lengths: {found}. Fix the file.")
                rows = (dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True))
            else:
                rows = value if isinstance(value, list) else [value]
                if rows and not any(isinstance(row, dict) for row in rows):
                    raise UserError(f"{self.named} {_NO_LIST}")
        for number, row in enumerate(rows, 1):
            yield f"row {number}", _object(row)


def _object(row: Any) -> Row:
    return row if isinstance(row, dict) else BadText("not_json", NO_OBJECT)


def _numbered(row: Any) -> Row:
    """Return a row of values without names: its columns are numbered from 0."""
    return {str(i): cell for i, cell in enumerate(row)} if isinstance(row, list) else BadText("not_json", NO_OBJECT)


def _are(kind: type, values: Sequence[Any]) -> bool:
    return all(isinstance(value, kind) for value in values)
