"""Your own files: json, jsonl, csv, tsv, parquet, or a folder of text files; any column names.

Either one file or folder for each split (``data.train_path`` …), or ``data.path``:

* a file: all splits are made from it;
* a folder with ``train.*``, ``validation.*`` (or ``val``, ``valid``, ``dev``), ``test.*``, as files or subfolders;
* a folder of texts: ``x.txt`` and its summary ``x.summary.txt``.

A split that is not given takes 5 % of the training examples, chosen by a hash of the document: the choice does not move
when rows are added or reordered, and two copies of a document never end in different splits.
"""

import csv
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from warmstart.data.settings import DataSettings
from warmstart.data.sources import SPLITS, Example
from warmstart.errors import UserError

SPLIT_SHARE = 0.05
SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
_NAMES = {"train": ("train", "training"), "validation": ("validation", "val", "valid", "dev"), "test": ("test",)}


def read_files(settings: DataSettings) -> tuple[Mapping[str, Sequence[Example]], Mapping[str, int]]:
    """The splits of the user's files.

    Raises:
        UserError: a path or column is missing, a file is malformed, or there is nothing in it.
    """
    report: dict[str, int] = {}
    found: dict[str, list[Example]] = {}
    for split, (option, path) in _paths(settings).items():
        found[split] = _read_split(path, option, settings, report)
    # Train last, so that what stays in it is what neither of the others took.
    for split in ("validation", "test"):
        if split not in found:
            taken, found["train"] = _split_off(found["train"], split, settings)
            found[split] = taken
            report[f"{split}_split_off"] = len(taken)
    return found, report


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
            raise _missing("data.path", whole)
        parts = _parts(whole) if whole.is_dir() else {}
        if parts and "train" not in parts and "train" not in given:
            raise UserError(
                f"data.path={whole} holds {', '.join(p.name for p in parts.values())} but no train file or folder. "
                "Add one, or set data.train_path."
            )
        given = {split: ("data.path", path) for split, path in (parts or {"train": whole}).items()} | given
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
                parts[split] = path
                break
    return parts


def _read_split(path: Path, option: str, settings: DataSettings, report: dict[str, int]) -> list[Example]:
    if not path.exists():
        raise _missing(option, path)
    if path.is_dir():
        examples = list(_text_folder(path, option))
    else:
        rows = read_rows(path, option)
        if not rows:
            raise UserError(f"{option}={path} holds no rows. Give a file with at least one example.")
        _check_columns(rows[0], path, settings)
        examples = [
            Example(
                str(row[settings.id_column]) if settings.id_column else str(i),
                *(_text(row.get(column)) for column in (settings.document_column, settings.summary_column)),
            )
            for i, row in enumerate(rows)
        ]
    whole = [example for example in examples if example.document.strip() and example.summary.strip()]
    report["without_document_or_summary"] = report.get("without_document_or_summary", 0) + len(examples) - len(whole)
    if not whole:
        raise UserError(
            f"{option}={path}: of {len(examples)} examples none has both a document and a summary. "
            "Check data.document_column and data.summary_column, and the files."
        )
    twice, times = Counter(example.id for example in whole).most_common(1)[0]
    if times > 1:
        raise UserError(
            f"data.id_column={settings.id_column}: the ids of {path} are not unique ({twice!r} stands {times} times). "
            "Name a column with unique ids, or set data.id_column=null to number the rows."
        )
    return whole


def read_rows(path: Path, option: str = "data.path") -> list[dict[str, Any]]:
    """The rows of a table file."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"{option}={path} is no kind of file that can be read. Use one of: {', '.join(SUFFIXES)}.")
    if suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        try:
            return pyarrow.parquet.read_table(path).to_pylist()
        except pyarrow.ArrowException as error:
            raise UserError(f"{option}={path} is no readable parquet file: {error}. Write it again.") from error
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{option}={path} is not UTF-8 text (byte {error.start}). Convert it: iconv -f LATIN1 -t UTF-8 FILE."
        ) from error
    if suffix in (".csv", ".tsv"):
        csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # Python's own limit, 128 KiB, is shorter than some articles
        return list(csv.DictReader(text.splitlines(keepends=True), delimiter="\t" if suffix == ".tsv" else ","))
    return _json_rows(text, path, option)


def _json_rows(text: str, path: Path, option: str) -> list[dict[str, Any]]:
    if path.suffix.lower() == ".json":
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            pass  # many files named json hold one object a line
        else:
            if isinstance(value, dict) and isinstance(value.get("data"), list):
                value = value["data"]
            if isinstance(value, dict) and value and all(isinstance(column, list) for column in value.values()):
                value = [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=False)]
            rows = value if isinstance(value, list) else [value]
            if all(isinstance(row, dict) for row in rows):
                return rows
            raise UserError(
                f'{option}={path} is json, but no list of objects. Write [{{"document": …, "summary": …}}].'
            )
    rows = []
    # Not splitlines(): it also splits at marks such as U+2028, which json allows inside a text.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{option}={path} line {number} is no json: {error}. Mend or delete the line.") from error
        if not isinstance(row, dict):
            raise UserError(f'{option}={path} line {number} is no object. Write {{"document": …, "summary": …}}.')
        rows.append(row)
    return rows


def _text_folder(folder: Path, option: str) -> Iterator[Example]:
    documents = sorted(p for p in folder.rglob("*.txt") if not p.name.endswith(".summary.txt"))
    if not documents:
        raise UserError(
            f"{option}={folder} holds no text files. Put x.txt and x.summary.txt there, or train.jsonl (csv, parquet)."
        )
    lacking = [p.name for p in documents if not p.with_name(f"{p.stem}.summary.txt").is_file()]
    if lacking:
        raise UserError(
            f"{option}={folder}: {len(lacking)} of {len(documents)} documents have no summary beside them, such as "
            f"{lacking[0]}. Each x.txt needs an x.summary.txt."
        )
    for path in documents:
        summary = path.with_name(f"{path.stem}.summary.txt")
        name = path.relative_to(folder).with_suffix("").as_posix()
        try:
            yield Example(name, path.read_text(encoding="utf-8-sig"), summary.read_text(encoding="utf-8-sig"))
        except UnicodeDecodeError as error:
            raise UserError(f"{option}: {path} or its summary is not UTF-8 text. Convert it with iconv.") from error


def _split_off(examples: list[Example], split: str, settings: DataSettings) -> tuple[list[Example], list[Example]]:
    def place(example: Example) -> int:
        digest = hashlib.sha256(f"{split}\0{example.document}".encode("utf-8", "replace")).digest()
        return int.from_bytes(digest[:8], "big")

    places = [place(example) for example in examples]
    bound = int(SPLIT_SHARE * 2**64)
    # A small file may have nothing below the bound: then the lowest place alone is taken.
    bound = max(bound, min(places) + 1)
    taken = [example for example, where in zip(examples, places, strict=True) if where < bound]
    left = [example for example, where in zip(examples, places, strict=True) if where >= bound]
    if not left:
        raise UserError(
            f"data={settings.name}: with {len(examples)} different training examples there is none to spare for "
            f"{split}. Give more examples, or set data.{split}_path."
        )
    return taken, left


def _check_columns(row: Mapping[str, Any], path: Path, settings: DataSettings) -> None:
    for option in ("document_column", "summary_column", "id_column"):
        column = getattr(settings, option)
        if column is not None and column not in row:
            raise UserError(
                f"data.{option}={column} is no column of {path}. It has: {', '.join(map(str, row))}. "
                f"Set data.{option} to one of them."
            )


def _text(value: Any) -> str:
    if value is None:
        return ""
    return "\n".join(map(_text, value)) if isinstance(value, list) else str(value)


def _missing(option: str, path: Path) -> UserError:
    near = path.parent
    found = (
        ", ".join(sorted(p.name for p in near.iterdir())[:8]) if near.is_dir() else "the folder does not exist either"
    )
    return UserError(f"{option}={path} does not exist. In {near}: {found or 'nothing'}. Correct {option}.")
