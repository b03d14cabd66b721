"""Write texts that are in memory to a file that a run can read, and read again when it is evaluated later.

The file is named by the hash of its content, so the same texts are one file, and runs on them have the same config.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any, TypeAlias

from warmstart.atomic import naming
from warmstart.cache import cache_root
from warmstart.errors import UserError, listed

if TYPE_CHECKING:
    import datasets
    import pandas

    Pair: TypeAlias = tuple[str, str] | Mapping[str, Any]
    """A document and its summary, or a row of named columns."""
    Texts: TypeAlias = str | os.PathLike[str] | Iterable[Pair] | pandas.DataFrame | datasets.Dataset
    """A file or folder, pairs, or a table of which two columns are used."""

COLUMNS = ("document", "summary")


def path_of(texts: Any, given: str, columns: tuple[str, str], cache_dir: str | None) -> str:
    """Return the path of texts; if they are in memory, write them to a file in the cache.

    Args:
        texts: A path, pairs, a DataFrame or a ``datasets.Dataset``.
        given: Name of the argument, for messages.
        columns: Names of the two columns in ``texts``; those of the file are ``COLUMNS``.
        cache_dir: ``data.cache_dir``.

    Raises:
        UserError: A column is missing, or the texts have another type.
    """
    if is_path(texts):
        return str(Path(texts))
    folder = cache_root(cache_dir) / "texts"
    with naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=folder, suffix=".tmp", delete=False) as file:
            try:
                digest = hashlib.sha256()
                for pair in _pairs(texts, given, columns):
                    row = dict(zip(COLUMNS, map(_plain, pair), strict=True))
                    line = json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
                    digest.update(line)
                    file.write(line)
                path = folder / f"{digest.hexdigest()[:16]}.jsonl"
                file.flush()
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
    return str(path)


def is_path(texts: Any) -> bool:
    """Return whether texts are given as a file or folder."""
    return isinstance(texts, str | os.PathLike)


def _pairs(texts: Any, given: str, columns: tuple[str, str]) -> Iterator[tuple[Any, Any]]:
    if hasattr(texts, "columns") and hasattr(texts, "itertuples"):  # a DataFrame
        _check_columns(list(texts.columns), given, columns)
        yield from zip(texts[columns[0]], texts[columns[1]], strict=True)
        return
    if not isinstance(texts, Iterable):
        raise UserError(
            f"{given} is a {type(texts).__name__}. Pass a path, pairs of texts, a DataFrame or a datasets.Dataset."
        )
    for number, row in enumerate(texts, 1):
        if isinstance(row, Mapping):
            _check_columns(list(row), given, columns)
            yield row[columns[0]], row[columns[1]]
        elif isinstance(row, tuple | list) and len(row) == 2:
            yield row[0], row[1]
        else:
            raise UserError(
                f"Row {number} of {given} is a {type(row).__name__}. Pass (document, summary), or a row with named "
                "columns."
            )


def _check_columns(found: list[str], given: str, columns: tuple[str, str]) -> None:
    for argument, column in zip(COLUMNS, columns, strict=True):
        if column not in found:
            raise UserError(f"{given} has no column {column!r}, only {listed(found)}. Set {argument}_column.")


def _plain(value: Any) -> Any:
    """Return what JSON can hold; a missing value of any library becomes null, which the reader reports."""
    known = isinstance(value, str | int | float)
    return value if known and value == value else None  # NaN differs from itself
