"""Read the user's own files: json, jsonl, csv, tsv, parquet, or a folder of text files; any column names.

Set one file or folder per split (``data.train_path`` …), or ``data.path``:

* a file, or a folder or pattern of its shards: all splits are made from it;
* a folder with ``train.*``, ``validation.*`` (or ``val``, ``valid``, ``dev``), ``test.*``, as files, shards or
  subfolders;
* a folder of texts: ``x.txt`` and its summary ``x.summary.txt``.

A missing split takes 5 % of the training examples, chosen by a hash of the document. So the choice does not change
when rows are added or reordered, and two copies of a document are always in the same split.

Each file is read and checked once, row by row, into a store on disk (``warmstart.data.sources.row_store``).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from warmstart.cache import cache_root
from warmstart.config.data import DataSettings, OnBadRow
from warmstart.data.build_once import build_once
from warmstart.data.sources.bad_rows import MAX_ROW_BYTES, BadRows, BadText, text_of, too_long
from warmstart.data.sources.base import SPLITS, Example
from warmstart.data.sources.columns import Columns, nested_names
from warmstart.data.sources.opened import GZIP, check_encoding
from warmstart.data.sources.own_paths import is_there, kinds_in, leads_out, missing, split_paths, table_files
from warmstart.data.sources.row_store import FORMAT_VERSION, SPLIT_OFF, StoredRows, open_rows, write_rows
from warmstart.data.sources.tables import SUFFIXES, Table, table_suffix
from warmstart.errors import UserError, listed

SPLIT_SHARE = 0.05
_ATTEMPTS = 3  # at reading a file that changes while it is read


def read_files(
    settings: DataSettings, splits: Sequence[str] = SPLITS
) -> tuple[Mapping[str, Sequence[Example]], Mapping[str, int]]:
    """Read the splits of the user's files.

    Args:
        settings: The ``data`` group of the config.
        splits: The splits to return. A file of another split is not opened.

    Returns:
        Examples by split, and counts of rows for the log.

    Raises:
        UserError: A path or column is missing, or a file is malformed or empty.
    """
    report: Counter[str] = Counter()
    found: dict[str, StoredRows] = {}
    paths = paths_of_splits(settings)
    for split, (option, path) in paths.items():
        if split in splits:
            found[split], counts = _read_split(path, option, settings)
            report.update(counts)
    # Train is what remains after the other splits are taken from it.
    for split in SPLIT_OFF:
        if split not in paths:
            rows = found["train"]
            taken = split_off(rows.split_hashes(split), split, settings)
            found[split], found["train"] = rows.only(np.flatnonzero(taken)), rows.only(np.flatnonzero(~taken))
            report[f"{split}_split_off"] = len(found[split])
    return found, report


def read_every_row(settings: DataSettings) -> tuple[Mapping[str, Sequence[Example]], Mapping[str, int]]:
    """Read all rows of ``data.path``, a file or a folder of texts, as the test split, like ``read_files``."""
    path = Path(str(settings.path)).expanduser()
    rows, counts = _read_split(path, "data.path", settings)
    return {"test": rows}, counts


def split_off(hashes: np.ndarray, split: str, settings: DataSettings) -> np.ndarray:
    """Choose the rows that a split takes from the training rows.

    Args:
        hashes: 64-bit hash of each row's document (N,).
        split: ``validation`` or ``test``.
        settings: For the message.

    Returns:
        A mask (N,) of the rows in the lowest ``SPLIT_SHARE`` of the range, or of the ``data.split_at_least`` lowest
        hashes if that is more.

    Raises:
        UserError: No row would be left for training.
    """
    lowest = np.unique(hashes)[: settings.split_at_least]
    taken: np.ndarray = (hashes < np.uint64(SPLIT_SHARE * 2**64)) | (hashes <= lowest[-1])
    if taken.all():
        raise UserError(
            f"data={settings.name}: {len(hashes)} training examples with {len(np.unique(hashes))} different documents "
            f"are too few to split off {split}. Provide more different documents, or set data.{split}_path."
        )
    return taken


def paths_of_splits(settings: DataSettings) -> dict[str, tuple[str, Path]]:
    """Return the option and the path of each split that has one."""
    given = {
        split: (f"data.{split}_path", Path(path).expanduser())
        for split in SPLITS
        if (path := getattr(settings, f"{split}_path"))
    }
    if settings.path:
        whole = Path(settings.path).expanduser()
        if not is_there(whole):
            raise missing("data.path", whole)
        found = split_paths(whole) if whole.is_dir() else {}
        if found and "train" not in found and "train" not in given:
            raise UserError(
                f"data.path={whole} holds {listed(p.name for p in found.values())} but no train file or folder. "
                "Add one, or set data.train_path."
            )
        given = {split: ("data.path", path) for split, path in (found or {"train": whole}).items()} | given
    if "train" not in given and given:
        named = ", ".join(f"data.{split}_path" for split in given)
        raise UserError(
            f"data={settings.name}: {named} is set, but no training file is. Every task reads all splits, so also set "
            "data.train_path to the run's training file."
        )
    if "train" not in given:
        raise UserError(
            f"data={settings.name} reads your own files, but no path is set. Set data.path=FILE_OR_FOLDER or "
            "data.train_path=FILE (json, jsonl, csv, tsv, parquet, or a folder of x.txt with x.summary.txt)."
        )
    return given


def _read_split(path: Path, option: str, settings: DataSettings) -> tuple[StoredRows, dict[str, int]]:
    if not is_there(path):
        raise missing(option, path)
    check_encoding(settings.encoding)
    where = f"{option}={path}"
    files = _Files(path, where)
    for _ in range(_ATTEMPTS):
        bad = BadRows(where, settings.on_bad_row)
        try:
            rows, counts = open_rows(_store(files, option, settings, bad), bad)
            break
        except _Changed:
            continue
    else:
        raise UserError(
            f"{where} changed while it was read, {_ATTEMPTS} times in a row: another program is writing to it. Start "
            "again when it is complete."
        )
    if not len(rows):
        raise UserError(
            f"{where}: none of the {counts['read']} rows can be used: {'; '.join(bad.examples)}. "
            "Check data.document_column and data.summary_column, and the files."
        )
    return rows, counts


class _Changed(Exception):
    """A file changed while it was read."""


class _Files:
    """The files behind a path: those of a table, or the texts of a folder."""

    def __init__(self, path: Path, where: str) -> None:
        self.path = path
        self.tables = table_files(path, where)
        self.texts = {} if self.tables else _text_files(path, where)
        """The path of the summary, which may not exist, of each document."""

    @property
    def every(self) -> list[Path]:
        return self.tables or [file for pair in self.texts.items() for file in pair if file.is_file()]

    @property
    def suffix(self) -> str:
        """The type of the tables; empty for texts."""
        first = self.tables[0] if self.tables else self.path
        return (table_suffix(first) if first.suffix.lower() == GZIP else "") or first.suffix.lower()

    def content(self) -> str:
        """Return a hash of the names and contents of all files."""
        digest = hashlib.sha256()
        for file in self.every:
            inside = file.relative_to(self.path).as_posix() if file.is_relative_to(self.path) else str(file)
            digest.update(repr(inside).encode())
            with file.open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
        # A document without a summary contributes one file, but is a row too.
        return digest.hexdigest() + str(len(self.texts))

    def times(self) -> list[tuple[int, ...]]:
        """Return inode, size and times of each file: they reveal a change that was undone before the next hash."""
        found = [file.stat() for file in self.every]
        return [(stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for stat in found]


def _store(files: _Files, option: str, settings: DataSettings, bad: BadRows) -> Path:
    """Return the store of the files, from the cache or newly written."""
    content, times = files.content(), files.times()

    def build(folder: Path) -> None:
        rows = _table_rows(files, option, settings, bad) if files.tables else _folder_rows(files, settings, bad)
        write_rows(folder, rows, bad, unique_ids=settings.id_column is not None and bool(files.tables))
        # The store's name contains the hash from before reading, so it is correct only if nothing has changed since.
        if files.times() != times or files.content() != content:
            raise _Changed
        if bad.counts.total() == 0 and (folder / "rows.jsonl").stat().st_size == 0:
            raise UserError(f"{bad.where} holds no rows. Give a file with at least one example.")

    columns = [settings.document_column, settings.summary_column, settings.id_column]
    # The names of text files are part of ``content``, as they become ids; of a table's name only the suffix matters.
    about = [FORMAT_VERSION, files.suffix, columns, settings.on_bad_row.value, content]
    plain = DataSettings(name="")
    reading = [settings.delimiter, settings.encoding, settings.join]
    if reading != [plain.delimiter, plain.encoding, plain.join]:  # so that stores of earlier releases keep their names
        about.append(reading)
    name = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:20]
    return build_once(cache_root(settings.cache_dir) / "texts" / name, build)


def _table_rows(
    files: _Files, option: str, settings: DataSettings, bad: BadRows
) -> Iterator[tuple[str, Example | None]]:
    columns = {"document": settings.document_column, "summary": settings.summary_column}
    if settings.id_column is not None:
        columns["id"] = settings.id_column
    cells = {role: Columns(column, settings.join) for role, column in columns.items()}
    number = kept = 0
    seen: dict[str, None] = {}
    for number, (where, row) in enumerate(_rows_of(files, option, tuple(columns.values()), settings), 1):
        example = None
        try:
            if isinstance(row, BadText):
                raise row
            if len(seen) < 100:
                seen |= dict.fromkeys(nested_names(row))
            values = {}
            for role, column in columns.items():
                try:
                    values[role] = cells[role].value(row)
                except KeyError:
                    if number == 1 and bad.policy is OnBadRow.fail:
                        raise no_column(role, column, files.path, nested_names(row)) from None
                    raise BadText("no_column", f"has no column {column}") from None
            texts = [text_of(values[role], role, settings.join) for role in ("document", "summary")]
            example = Example(_id(values["id"]) if "id" in values else str(number - 1), *texts)
            kept += 1
        except BadText as error:
            bad.found(error.kind, where, str(error))
        yield where, example
    if number and not kept and bad.counts["no_column"] == number:
        named = dict.fromkeys(seen)
        role, column = next(
            ((role, column) for role, column in columns.items() if not cells[role].are_in(list(named))),
            next(iter(columns.items())),
        )
        raise no_column(role, column, files.path, list(named))


def _rows_of(
    files: _Files, option: str, wanted: Sequence[str], settings: DataSettings
) -> Iterator[tuple[str, dict[str, Any] | BadText]]:
    for file in files.tables:
        table = Table(file, option, wanted, delimiter=settings.delimiter, encoding=settings.encoding)
        for where, row in table.rows():
            yield where if file == files.path else f"{where} of {file.name!r}", row


def _id(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return text_of(value, "id")


def _text_files(folder: Path, where: str) -> dict[Path, Path]:
    """Map each document of a folder to the path of its summary, which may not exist."""
    documents = sorted(p for p in folder.rglob("*.txt") if not p.name.endswith(".summary.txt"))
    if not documents:
        raise UserError(
            f"{where} holds {kinds_in(folder)}, but no text files (x.txt with x.summary.txt) and no train file. Set it "
            f"to one file ({', '.join(SUFFIXES)}), or join the files into one named train, such as train.jsonl."
        )
    texts = {path: path.with_name(f"{path.stem}.summary.txt") for path in documents}
    for path in (path for pair in texts.items() for path in pair if path.exists() and leads_out(path, folder)):
        raise UserError(
            f"{where}: {path.name} is a link to {path.resolve()}, outside the folder, and is not followed. To use the "
            "file, copy it into the folder."
        )
    return texts


def _folder_rows(files: _Files, settings: DataSettings, bad: BadRows) -> Iterator[tuple[str, Example | None]]:
    folder, texts = files.path, files.texts
    lacking = [path.name for path, summary in texts.items() if not summary.is_file()]
    if lacking and bad.policy is OnBadRow.fail:
        raise UserError(
            f"{bad.where}: {len(lacking)} of {len(texts)} documents have no summary, such as {lacking[0]}. Add an "
            "x.summary.txt for each x.txt, or set data.on_bad_row=skip to skip such documents."
        )
    for document, summary in texts.items():
        name = document.relative_to(folder).with_suffix("").as_posix()
        example = None
        try:
            if not (document.is_file() and summary.is_file()):
                raise BadText("no_summary", "has no summary file")
            found = [read_text(path, settings.encoding) for path in (document, summary)]
            both = [text_of(text, role) for text, role in zip(found, ("document", "summary"), strict=True)]
            example = Example(text_of(name, "id"), *both)
        except BadText as error:
            bad.found(error.kind, ascii(f"{name}.txt"), str(error))
        yield name, example


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """Read a text file, with bytes that cannot be decoded as surrogate escapes.

    Args:
        path: The file.
        encoding: ``data.encoding``.

    Raises:
        BadText: The file is longer than ``MAX_ROW_BYTES``, or does not have an encoding of several bytes a character.
    """
    with path.open("rb") as file:
        return decoded(file, encoding)


def decoded(file: BinaryIO, encoding: str = "utf-8") -> str:
    """Read an open file like ``read_text``."""
    content = file.read(MAX_ROW_BYTES + 1)
    if len(content) > MAX_ROW_BYTES:
        raise too_long()
    try:
        text = content.decode("utf-8-sig" if encoding == "utf-8" else encoding, "surrogateescape")
    except UnicodeError as error:
        raise BadText("not_utf8", f"is not {encoding} text: {error}") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def no_column(role: str, column: str, path: Path, found: Sequence[str]) -> UserError:
    """Return the error for a column that a table lacks; it lists the columns."""
    return UserError(
        f"data.{role}_column={column!r} is not a column of {path}, which has: {listed(found)}. "
        f"Set data.{role}_column to one of them."
    )
