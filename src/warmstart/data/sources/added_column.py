"""Copy a table with one column more: ``summary``, or ``generated_summary`` if there is a ``summary`` already.

    table = AddedColumn(Path("reviews.csv"), "input", "document", OnBadRow.fail)
    for row, document in table.rows():
        file.write(table.line(row, summary_of(document)))

The file is read twice, row by row: first to check every row, so that a bad one is found before hours of generation.
"""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from warmstart.config.data import OnBadRow
from warmstart.data.sources.bad_rows import BadRows, BadText, text_of
from warmstart.data.sources.columns import Columns
from warmstart.data.sources.files import no_column
from warmstart.data.sources.tables import Row, Table
from warmstart.errors import UserError

FORMATS = (".csv", ".tsv", ".jsonl")
NAMES = ("summary", "generated_summary")


class AddedColumn:
    """A csv, tsv or jsonl file, and its copy with a column more.

    Args:
        path: The file; its suffix is one of ``FORMATS``.
        option: The option that the user set to the path, for messages.
        column: The column of the documents.
        policy: Whether an unusable row ends the task or is left out of the copy.
        delimiter: What separates the columns of a csv or tsv file; None finds it in the first line.
        encoding: Encoding of the file; the copy is UTF-8.

    Raises:
        UserError: The file or a row cannot be used, the column is missing, or both of ``NAMES`` are taken.
    """

    def __init__(
        self,
        path: Path,
        option: str,
        column: str,
        policy: OnBadRow,
        *,
        delimiter: str | None = None,
        encoding: str = "utf-8",
    ) -> None:
        self.path, self.column, self.named = path, column, f"{option}={path}"
        self._bad = BadRows(self.named, policy)
        by_column = Table(path, option, (column,), delimiter=delimiter, encoding=encoding)
        is_json = path.suffix.lower() == ".jsonl"
        # The copy has the delimiter of the file.
        self._delimiter = None if is_json else by_column.dialect(report=False).delimiter
        first = next((row for _, row in by_column.rows() if not isinstance(row, BadText)), {})
        # All columns are copied, so all of them need names of their own. Only then is this table opened.
        every = Table(path, option, (column, *first), delimiter=self._delimiter, encoding=encoding)
        self._table = by_column if is_json else every
        self.columns = list(first)
        self.name = NAMES[0]
        """The new column."""
        self.count, self.skipped = self._check()
        """Number of usable rows, and a sentence on the others; empty if there are none."""

    def _check(self) -> tuple[int, str]:
        read = kept = 0
        seen: dict[str, None] = dict.fromkeys(self.columns)
        for read, (where, row) in enumerate(self._table.rows(), 1):
            if not isinstance(row, BadText):
                if read == 1 and not Columns(self.column).are_in(list(row)) and self._bad.policy is OnBadRow.fail:
                    raise no_column("document", self.column, self.path, list(row))
                seen |= dict.fromkeys(name for name in NAMES if name in row)
            try:
                self._document(row)
                kept += 1
            except BadText as error:
                self._bad.found(error.kind, where, str(error))
        if read and self._bad.counts["no_column"] == read:
            raise no_column("document", self.column, self.path, list(seen))
        if not kept:
            found = self._bad.skipped(read) if read else f"{self.named} holds no rows."
            raise UserError(f"{found} Give a file with at least one document.")
        free = [name for name in NAMES if name not in seen]
        if not free:
            raise UserError(
                f"{self.named} has the columns {' and '.join(NAMES)} already. Rename or remove one of them."
            )
        self.name = free[0]
        return kept, self._bad.skipped(read)

    def _document(self, row: Row) -> str:
        if isinstance(row, BadText):
            raise row
        try:
            document = text_of(Columns(self.column).value(row), "document")
        except KeyError:
            raise BadText("no_column", f"has no column {self.column}") from None
        try:
            self.line(row, "").encode()
        except UnicodeEncodeError:
            raise BadText("not_utf8", f"has bytes that are not UTF-8 in a column other than {self.column}") from None
        return document

    def rows(self) -> Iterator[tuple[dict[str, Any], str]]:
        """Yield the columns and the document of each usable row."""
        for where, row in self._table.rows():
            try:
                document = self._document(row)
            except BadText as error:
                self._bad.found(error.kind, where, str(error))
                continue
            assert not isinstance(row, BadText)
            yield row, document

    def header(self) -> str:
        """Return the first line of the copy; empty for jsonl."""
        return self._cells([*self.columns, self.name]) if self._delimiter else ""

    def line(self, row: dict[str, Any], summary: str) -> str:
        """Return a row of the copy, with its line end."""
        if self._delimiter:
            return self._cells([*row.values(), summary])
        return json.dumps(row | {self.name: summary}, ensure_ascii=False) + "\n"

    def _cells(self, cells: list[str]) -> str:
        text = io.StringIO()
        # With this line end, cells with either of its characters are quoted.
        csv.writer(text, delimiter=self._delimiter or ",", lineterminator="\r\n").writerow(cells)
        return text.getvalue().removesuffix("\r\n") + "\n"
