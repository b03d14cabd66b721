"""Your own files: json, jsonl, csv, tsv, parquet, or a folder of text files; any column names.

Either one file or folder for each split (``data.train_path`` …), or ``data.path``:

* a file: all splits are made from it;
* a folder with ``train.*``, ``validation.*`` (or ``val``, ``valid``, ``dev``), ``test.*``, as files or subfolders;
* a folder of texts: ``x.txt`` and its summary ``x.summary.txt``.

A split that is not given takes 5 % of the training examples, chosen by a hash of the document: the choice does not move
when rows are added or reordered, and two copies of a document never end in different splits.

Each file is read and checked once, row by row, into a store on disk; ``data.on_bad_row`` says what becomes of
a row that cannot be used.
"""

import difflib
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from warmstart.cache import cache_root
from warmstart.config.data import DataSettings, OnBadRow
from warmstart.data.sources.bad_rows import MAX_ROW_BYTES, BadRows, BadText, text_of, too_long
from warmstart.data.sources.base import SPLITS, Example
from warmstart.data.sources.row_store import FORMAT_VERSION, SPLIT_OFF, StoredRows, open_rows, write_rows
from warmstart.data.sources.tables import SUFFIXES, Table
from warmstart.data.tokenization.build_once import build_once
from warmstart.errors import UserError, listed

SPLIT_SHARE = 0.05
_NO_FOLDER = "the folder does not exist either"
_READINGS = 3  # of a file that changes each time
_NAMES = {"train": ("train", "training"), "validation": ("validation", "val", "valid", "dev"), "test": ("test",)}


def read_files(
    settings: DataSettings, splits: Sequence[str] = SPLITS
) -> tuple[Mapping[str, Sequence[Example]], Mapping[str, int]]:
    """The splits of the user's files; a file of a split that is not among ``splits`` is not opened.

    Raises:
        UserError: a path or column is missing, a file is malformed, or there is nothing in it.
    """
    report: Counter[str] = Counter()
    found: dict[str, StoredRows] = {}
    paths = _paths(settings)
    for split, (option, path) in paths.items():
        if split in splits:
            found[split], counts = _read_split(path, option, settings)
            report.update(counts)
    # Train last, so that what stays in it is what neither of the others took.
    for split in SPLIT_OFF:
        if split not in paths:
            rows = found["train"]
            taken = split_off(rows.places(split), split, settings)
            found[split], found["train"] = rows.only(np.flatnonzero(taken)), rows.only(np.flatnonzero(~taken))
            report[f"{split}_split_off"] = len(found[split])
    return found, report


def split_off(places: np.ndarray, split: str, settings: DataSettings) -> np.ndarray:
    """Which rows go to ``split``, as a mask: those with a place in the lowest twentieth, at least one document.

    Raises:
        UserError: none would stay.
    """
    # A small file may have nothing below the bound: then the lowest place alone is taken.
    taken = (places < np.uint64(SPLIT_SHARE * 2**64)) | (places == places.min())
    if taken.all():
        raise UserError(
            f"data={settings.name}: with {len(places)} different training examples there is none to spare for "
            f"{split}. Give more examples, or set data.{split}_path."
        )
    return taken


def _paths(settings: DataSettings) -> dict[str, tuple[str, Path]]:
    """For each split that is given: the option that names it and its path."""
    given = {
        split: (f"data.{split}_path", Path(path).expanduser())
        for split in SPLITS
        if (path := getattr(settings, f"{split}_path"))
    }
    if settings.path:
        whole = Path(settings.path).expanduser()
        if not whole.exists():
            raise missing("data.path", whole)
        parts = _parts(whole) if whole.is_dir() else {}
        if parts and "train" not in parts and "train" not in given:
            raise UserError(
                f"data.path={whole} holds {listed(p.name for p in parts.values())} but no train file or folder. "
                "Add one, or set data.train_path."
            )
        given = {split: ("data.path", path) for split, path in (parts or {"train": whole}).items()} | given
    if "train" not in given and given:
        named = ", ".join(f"data.{split}_path" for split in given)
        raise UserError(
            f"data={settings.name}: {named} is named, but no training file, and every task reads all splits. Name the "
            "run's own with data.train_path=FILE, too."
        )
    if "train" not in given:
        raise UserError(
            f"data={settings.name} reads your own files, but none is named. Set data.path=FILE_OR_FOLDER or "
            "data.train_path=FILE (json, jsonl, csv, tsv, parquet, or a folder of x.txt with x.summary.txt)."
        )
    return given


def _parts(folder: Path) -> dict[str, Path]:
    parts: dict[str, Path] = {}
    for split, names in _NAMES.items():
        candidates = [folder / f"{name}{suffix}" for name in names for suffix in (*SUFFIXES, "")]
        for path in candidates:
            if path.is_file() if path.suffix else path.is_dir():
                if leads_out(path, folder):
                    raise UserError(
                        f"data.path={folder}: {path.name} is a link to {path.resolve()}, outside of the folder, and is "
                        f"not followed. If it is meant, name it: data.{split}_path={path}."
                    )
                parts[split] = path
                break
    return parts


def leads_out(path: Path, folder: Path) -> bool:
    """Whether ``path`` is, by links, somewhere else than inside ``folder``: an unpacked archive may hold such links."""
    return not path.resolve().is_relative_to(folder.resolve())


def _read_split(path: Path, option: str, settings: DataSettings) -> tuple[StoredRows, dict[str, int]]:
    if not path.exists():
        raise missing(option, path)
    where = f"{option}={path}"
    texts = _text_files(path, where) if path.is_dir() else {}
    for _ in range(_READINGS):
        bad = BadRows(where, settings.on_bad_row)
        try:
            rows, counts = open_rows(_store(path, option, texts, settings, bad), bad)
            break
        except _Changed:
            continue
    else:
        raise UserError(
            f"{where} changed each of the {_READINGS} times that it was read: another program writes to it. Start "
            "again when it is complete."
        )
    if not len(rows):
        raise UserError(
            f"{where}: none of {counts['read']} rows can be used: {'; '.join(bad.examples)}. "
            "Check data.document_column and data.summary_column, and the files."
        )
    return rows, counts


class _Changed(Exception):
    """A file changed while it was read."""


def _store(path: Path, option: str, texts: Mapping[Path, Path], settings: DataSettings, bad: BadRows) -> Path:
    """The folder of rows of these contents, from the cache or written now."""
    content, times = _content(path, texts), _times(path, texts)

    def build(folder: Path) -> None:
        rows = _folder_rows(path, texts, bad) if path.is_dir() else _table_rows(path, option, settings, bad)
        write_rows(folder, rows, bad, unique_ids=settings.id_column is not None and not path.is_dir())
        # The folder's name says what was hashed before; only what did not change since is what was read.
        if _times(path, texts) != times or _content(path, texts) != content:
            raise _Changed
        if bad.counts.total() == 0 and (folder / "rows.jsonl").stat().st_size == 0:
            raise UserError(f"{bad.where} holds no rows. Give a file with at least one example.")

    columns = [settings.document_column, settings.summary_column, settings.id_column]
    # A folder's names of files are its ids; a table's name says only how to read it.
    about = [FORMAT_VERSION, path.suffix.lower(), columns, settings.on_bad_row.value, content]
    name = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:20]
    return build_once(cache_root(settings.cache_dir) / "texts" / name, build)


def _table_rows(path: Path, option: str, settings: DataSettings, bad: BadRows) -> Iterator[tuple[str, Example | None]]:
    columns = {"document": settings.document_column, "summary": settings.summary_column}
    if settings.id_column is not None:
        columns["id"] = settings.id_column
    number = kept = 0
    seen: dict[str, None] = {}
    for number, (where, row) in enumerate(Table(path, option, tuple(columns.values())).rows(), 1):
        example = None
        try:
            if isinstance(row, BadText):
                raise row
            if len(seen) < 100:
                seen |= dict.fromkeys(row)
            for role, column in columns.items():
                if column not in row:
                    if number == 1 and bad.policy is OnBadRow.fail:
                        raise _no_column(role, column, path, list(row))
                    raise BadText("no_column", f"has no column {column}")
            texts = [text_of(row[column], role) for role, column in columns.items() if role != "id"]
            example = Example(_id(row[columns["id"]]) if "id" in columns else str(number - 1), *texts)
            kept += 1
        except BadText as error:
            bad.found(error.kind, where, str(error))
        yield where, example
    if number and not kept and bad.counts["no_column"] == number:
        role, column = next((role, column) for role, column in columns.items() if column not in seen)
        raise _no_column(role, column, path, list(seen))


def _id(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return text_of(value, "id")


def _text_files(folder: Path, where: str) -> dict[Path, Path]:
    """Each document of a folder and its summary."""
    documents = sorted(p for p in folder.rglob("*.txt") if not p.name.endswith(".summary.txt"))
    if not documents:
        raise UserError(
            f"{where} holds {kinds_in(folder)}, but no text files (x.txt with x.summary.txt) and no train file. Name "
            f"one file (of {', '.join(SUFFIXES)}), or join the parts into one that is called train, as in train.jsonl."
        )
    texts = {path: path.with_name(f"{path.stem}.summary.txt") for path in documents}
    for path in (path for pair in texts.items() for path in pair if path.exists() and leads_out(path, folder)):
        raise UserError(
            f"{where}: {path.name} is a link to {path.resolve()}, outside of the folder, and is not followed. "
            "Copy the file there if it is meant."
        )
    return texts


def kinds_in(folder: Path) -> str:
    """What a folder holds, by kind of file."""
    kinds: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            kinds.setdefault(path.suffix or "other", []).append(path)
    most = sorted(kinds.items(), key=lambda kind: -len(kind[1]))[:3]
    return ", ".join(f"{len(found)} {kind} files such as {found[0].name!r}" for kind, found in most) or "nothing"


def _folder_rows(folder: Path, texts: Mapping[Path, Path], bad: BadRows) -> Iterator[tuple[str, Example | None]]:
    lacking = [path.name for path, summary in texts.items() if not summary.is_file()]
    if lacking and bad.policy is OnBadRow.fail:
        raise UserError(
            f"{bad.where}: {len(lacking)} of {len(texts)} documents have no summary beside them, such as "
            f"{lacking[0]}. Each x.txt needs an x.summary.txt; data.on_bad_row=skip leaves such documents out."
        )
    for document, summary in texts.items():
        name = document.relative_to(folder).with_suffix("").as_posix()
        example = None
        try:
            if not (document.is_file() and summary.is_file()):
                raise BadText("no_summary", "has no summary beside it")
            found = [read_text(path) for path in (document, summary)]
            both = [text_of(text, role) for text, role in zip(found, ("document", "summary"), strict=True)]
            example = Example(text_of(name, "id"), *both)
        except BadText as error:
            bad.found(error.kind, ascii(f"{name}.txt"), str(error))
        yield name, example


def read_text(path: Path) -> str:
    """The text of a file, its undecodable bytes as half characters.

    Raises:
        BadText: it is longer than a row may be.
    """
    with path.open("rb") as file:
        return decoded(file)


def decoded(file: BinaryIO) -> str:
    """The text of an open file, as :func:`read_text` gives it."""
    content = file.read(MAX_ROW_BYTES + 1)
    if len(content) > MAX_ROW_BYTES:
        raise too_long()
    return content.decode("utf-8-sig", "surrogateescape").replace("\r\n", "\n").replace("\r", "\n")


def _content(path: Path, texts: Mapping[Path, Path]) -> str:
    digest = hashlib.sha256()
    for file in _files(path, texts):
        digest.update(repr(file.relative_to(path).as_posix()).encode())
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    # A document without a summary has no second file, yet it is a row.
    return digest.hexdigest() + str(len(texts))


def _times(path: Path, texts: Mapping[Path, Path]) -> list[tuple[int, ...]]:
    """What any change of the files changes, also where it is undone before the files are hashed again."""
    found = [file.stat() for file in _files(path, texts)]
    return [(stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for stat in found]


def _files(path: Path, texts: Mapping[Path, Path]) -> list[Path]:
    return [path] if path.is_file() else [file for pair in texts.items() for file in pair if file.is_file()]


def _no_column(role: str, column: str, path: Path, found: Sequence[str]) -> UserError:
    return UserError(
        f"data.{role}_column={column!r} is not a column of {path}. It has: {listed(found)}. "
        f"Set data.{role}_column to one of them."
    )


def missing(option: str, path: Path) -> UserError:
    """The error for a path that does not exist: it lists what is there instead, similar names first."""
    near = path.parent
    names = sorted(p.name for p in near.iterdir()) if near.is_dir() else []
    like = difflib.get_close_matches(path.name, names)
    found = listed([*like, *(name for name in names if name not in like)]) if near.is_dir() else _NO_FOLDER
    return UserError(f"{option}={path} does not exist. In {near}: {found or 'nothing'}. Correct {option}.")
