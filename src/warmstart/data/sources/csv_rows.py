"""Stream the rows of a csv file whose delimiter, quotes and blanks are found in its first lines."""

import csv
import logging
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple, TextIO

from warmstart.data.sources.bad_rows import MAX_ROW_BYTES, BadText
from warmstart.data.sources.columns import Columns
from warmstart.errors import UserError, listed

COMMON = (",", ";", "\t", "|")
_LEADING = 3  # rows that show whether the file has another delimiter than its header
_log = logging.getLogger(__name__)


class Dialect(NamedTuple):
    """How the cells of a file are written."""

    delimiter: str
    quote: str
    blanks_after_delimiter: bool
    skipped: int
    """Lines before the header: blank ones, and ``sep=;``, which some spreadsheets write."""

    def reader(self, lines: Any) -> Any:
        """Return a reader of lines. It is strict, because otherwise a stray quote swallows rows."""
        return csv.reader(
            lines,
            delimiter=self.delimiter,
            quotechar=self.quote,
            skipinitialspace=self.blanks_after_delimiter,
            strict=True,
        )


def csv_rows(
    file: TextIO, named: str, wanted: Sequence[Columns], dialect: Dialect
) -> Iterator[tuple[str, dict[str, Any] | BadText]]:
    """Yield the location ("line 7") and the cells of each row by column.

    Args:
        file: The file, opened with ``newline=""``.
        named: The option and path as the user gave them, for messages.
        wanted: The columns that may occur only once.
        dialect: That of the file.

    Raises:
        UserError: The file is not valid CSV, a wanted column occurs twice, or the rows have another delimiter than the
            header.
    """
    csv.field_size_limit(MAX_ROW_BYTES)  # Python's default of 128 KiB is too short for some articles
    file.seek(0)
    lines = _Lines(file)
    for _ in range(dialect.skipped):
        next(lines)
    reader = dialect.reader(lines)
    shown = shown_delimiter(dialect.delimiter)
    try:
        header = [cell.strip() for cell in next(reader, [])]
        for name in {top for columns in wanted for top in columns.tops(header)}:
            if header.count(name) > 1:
                raise UserError(f"{named} has two columns named {name}. Rename one of them.")
        rows = _located(reader, lines, dialect.skipped)
        leading = list(islice(rows, _LEADING))
        other = _other_delimiter([cells for _, cells in leading], len(header))
        if other is not None:
            raise UserError(
                f"{named}: the columns of its first line are separated by {shown}, those of {leading[0][0]} by "
                f"{shown_delimiter(other)}. Write the file with one delimiter."
            )
        for where, cells in chain(leading, rows):
            row: dict[str, Any] | BadText = dict(zip(header, cells, strict=False))
            if len(cells) != len(header):
                row = BadText("wrong_cells", f"has {len(cells)} cells for {len(header)} columns (separated by {shown})")
            yield where, row
    except csv.Error as error:
        raise UserError(
            f"{named} is not valid CSV from line {dialect.skipped + reader.line_num} on: {error}. Look for an unclosed "
            "quote: a cell that starts with a quote must end with one, and quotes inside it must be doubled. The "
            f"columns are read as separated by {shown}; data.delimiter sets another delimiter."
        ) from error


def find_dialect(
    file: TextIO, named: str, wanted: Sequence[Columns], requested: str | None, usual: str, *, report: bool = True
) -> Dialect:
    """Find out how the cells of a file are written.

    Args:
        file: The file, opened with ``newline=""``.
        named: The option and path as the user gave them, for messages.
        wanted: The columns that are read; the delimiter is the one with which the header has them.
        requested: ``data.delimiter``.
        usual: The delimiter of files with this suffix.
        report: Whether to log an unusual delimiter.

    Raises:
        UserError: ``data.delimiter`` is not a single character, or it is not the file's.
    """
    skipped, line, stated = 0, "", None
    while line := file.readline(MAX_ROW_BYTES):
        text = line.strip("\ufeff\r\n")
        if stated is None and text.lower().strip('"').startswith("sep=") and len(text.strip('"')) == len("sep=") + 1:
            stated = text.strip('"')[-1]
        elif text.strip():
            break
        skipped += 1
    text = line.strip("\ufeff\r\n")
    found = stated or _likely(text, wanted, usual)
    delimiter = found if requested is None else _checked(requested)
    if delimiter != found and _present(text, wanted, found) > _present(text, wanted, delimiter):
        raise UserError(
            f"{named}: data.delimiter={requested!r} is set, but the columns of its first line are separated by "
            f"{shown_delimiter(found)}: {listed(_cells(text, found))}. Set data.delimiter={found!r}, or null."
        )
    if report and delimiter != usual:
        _log.info("%s: its columns are separated by %s (data.delimiter).", named, shown_delimiter(delimiter))
    cells = [cell.strip() for cell in text.split(delimiter)]
    quote = "'" if all(len(cell) > 1 and cell[0] == cell[-1] == "'" for cell in cells) else '"'
    blanks = not delimiter.isspace() and any(cell.startswith(" ") for cell in text.split(delimiter)[1:])
    return Dialect(delimiter, quote, blanks, skipped)


def shown_delimiter(delimiter: str) -> str:
    """Name a delimiter for a message."""
    return {"\t": "tabs", " ": "blanks"}.get(delimiter, f"{delimiter!r}")


def _checked(requested: str) -> str:
    delimiter = {"tab": "\t", r"\t": "\t"}.get(requested, requested)
    if len(delimiter) != 1 or delimiter in "\r\n\"'":
        raise UserError(f"data.delimiter={requested!r} is not a single character. Set one such as ';', '|' or tab.")
    return delimiter


def _likely(header: str, wanted: Sequence[Columns], usual: str) -> str:
    best = max(COMMON, key=lambda one: (_present(header, wanted, one), len(_cells(header, one)), one == usual))
    if wanted and _present(header, wanted, best) == 0:
        others = dict.fromkeys(mark for mark in header if not mark.isalnum() and mark not in "_\"'\ufeff")
        return next((mark for mark in others if _present(header, wanted, mark) == len(wanted)), best)
    return best


def _present(header: str, wanted: Sequence[Columns], delimiter: str) -> int:
    names = _cells(header, delimiter)
    return sum(columns.are_in(names) for columns in wanted)


def _cells(line: str, delimiter: str) -> list[str]:
    """Split a line; quotes and blanks around its cells do not count."""
    try:
        cells = next(csv.reader([line], delimiter=delimiter, skipinitialspace=not delimiter.isspace()), [])
    except csv.Error:
        cells = line.split(delimiter)
    return [cell.strip("\ufeff \t'") for cell in cells]


def _located(reader: Any, lines: "_Lines", skipped: int) -> Iterator[tuple[str, list[str]]]:
    """Yield the location and the cells of each row that is not an empty line."""
    before = reader.line_num
    lines.taken = 0
    for cells in reader:
        lines.taken = 0
        where, before = f"line {skipped + before + 1}", reader.line_num
        if cells:
            yield where, cells


def _other_delimiter(rows: list[list[str]], columns: int) -> str | None:
    """Return a delimiter that splits the first row into the right number of cells, if all rows have one cell."""
    if not rows or columns == 1 or any(len(cells) != 1 for cells in rows):
        return None
    return next((one for one in COMMON if len(_cells(rows[0][0], one)) == columns), None)


class _Lines:
    """The lines of a CSV file, with a limit on the length of the row being read.

    ``taken`` counts the characters of the current row; the caller sets it to 0 after each row.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._is_start = True
        self.taken = 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._file.readline(MAX_ROW_BYTES)
        self.taken += len(line)
        if self._is_start:  # a quote after a byte order mark would not be recognized
            line, self._is_start = line.lstrip("\ufeff"), False
        # Many short cells, on many lines, can also make a row of unbounded length.
        if self.taken >= MAX_ROW_BYTES:
            raise csv.Error(f"the row is longer than {MAX_ROW_BYTES} bytes")
        if not line:
            raise StopIteration
        return line
