"""Read the files that the authors of CNN/DailyMail and XSum distribute, with their own splits.

CNN/DailyMail (Hermann et al. 2015, See et al. 2017) is a folder with ``NAME.story`` files, in any subfolders, and lists
of URLs (``all_train.txt``, ``all_val.txt``, ``all_test.txt``, or the ``*_wayback_*_urls.txt`` of both newspapers). A
story's name is the SHA-1 of its URL. Its lines become the texts of version 3.0.0 on the hub, character by character.

XSum (Narayan et al. 2018) is a folder with ``document/ID.document`` and ``summary/ID.summary`` (any suffixes), and
``XSum-TRAINING-DEV-TEST-SPLIT-90-5-5.json`` with the ids of each split.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from warmstart.cache import cache_root
from warmstart.config.data import DataSettings
from warmstart.data.build_once import build_once
from warmstart.data.sources.bad_rows import BadRows, BadText, text_of
from warmstart.data.sources.base import SPLITS, Example
from warmstart.data.sources.files import read_text
from warmstart.data.sources.row_store import FORMAT_VERSION, open_rows, write_rows
from warmstart.data.sources.unique_ids import renamed
from warmstart.errors import UserError, listed

# What ends a sentence; the hub's version adds " ." to lines without, such as captions.
_ENDS = (".", "!", "?", "...", "'", "`", '"', "\u2019", "\u201d", ")")
_LIST_NAMES = {"train": re.compile("train"), "validation": re.compile("val"), "test": re.compile("test")}
_READERS_VERSION = 1


def is_stories(folder: Path) -> bool:
    """Return whether a folder holds stories of CNN/DailyMail."""
    return folder.is_dir() and next(folder.rglob("*.story"), None) is not None


def is_xsum(folder: Path) -> bool:
    """Return whether a folder holds documents and summaries as XSum's authors distribute them."""
    return (folder / "document").is_dir() and (folder / "summary").is_dir()


def read_originals(folder: Path, settings: DataSettings) -> tuple[Mapping[str, Sequence[Example]], Mapping[str, int]]:
    """Read the splits of the original files.

    Args:
        folder: A folder for which ``is_stories`` or ``is_xsum`` is true.
        settings: The ``data`` group of the config.

    Returns:
        Examples by split, and counts of rows for the log.

    Raises:
        UserError: The lists of the splits are missing, or a text is missing or empty and
            ``data.on_bad_row`` is ``fail``.
    """
    named = f"data.path={folder}"
    stories = is_stories(folder)
    ids = _ids_of_stories(folder, named) if stories else _ids_of_xsum(folder, named)
    every = {path.stem: path for path in folder.rglob("*.story")} if stories else {}
    documents, summaries = (_by_stem(folder / name) for name in ("document", "summary"))

    def texts(name: str) -> tuple[str, str]:
        """Return document and summary."""
        if stories:
            return story_texts(_read(every, name))
        return _read(documents, name), _read(summaries, name)

    report: Counter[str] = Counter()
    splits = {}
    files = [*every.values(), *documents.values(), *summaries.values()]
    state = hashlib.sha256(repr(sorted(_state(file) for file in files)).encode()).hexdigest()
    for split in SPLITS:
        bad = BadRows(f"{named} ({split})", settings.on_bad_row)
        about = [FORMAT_VERSION, _READERS_VERSION, split, ids[split], state, settings.on_bad_row.value]
        if new := renamed(ids[split]):  # so that the stores of other lists keep their names
            about.append(list(new.values()))
        name = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:20]
        store = cache_root(settings.cache_dir) / "texts" / name
        build_once(store, _builder(ids[split], new, texts, bad))
        splits[split], counts = open_rows(store, bad)
        report.update(counts)
        if not len(splits[split]):
            raise UserError(f"{named}: none of the {len(ids[split])} texts of {split} is there: {bad.examples[0]}.")
    return splits, report


def story_texts(story: str) -> tuple[str, str]:
    """Return the article and the highlights of a story, as version 3.0.0 on the hub has them.

    Args:
        story: The text of a ``.story`` file.

    Returns:
        The lines of the article joined by blanks, and the highlights joined by line breaks.
    """
    article: list[str] = []
    highlights: list[str] = []
    lines = article
    for line in filter(None, map(str.strip, story.split("\n"))):
        if line.startswith("@highlight"):
            lines = highlights
        else:
            lines.append(line if line.endswith(_ENDS) or "@highlight" in line else f"{line} .")
    return " ".join(article), "\n".join(highlights)


def _builder(
    ids: Sequence[str], new: Mapping[int, str], texts: Callable[[str], tuple[str, str]], bad: BadRows
) -> Callable[[Path], None]:
    def rows() -> Iterator[tuple[str, Example | None]]:
        for number, name in enumerate(ids):
            example = None
            try:
                both = zip(texts(name), ("document", "summary"), strict=True)
                example = Example(new.get(number, name), *(text_of(text, role) for text, role in both))
            except BadText as error:
                bad.found(error.kind, f"text {name!r}", str(error))
            yield f"text {number + 1}", example

    return lambda folder: write_rows(folder, rows(), bad, unique_ids=False)


def _read(files: Mapping[str, Path], name: str) -> str:
    if name not in files:
        raise BadText("no_file", "has no file")
    return read_text(files[name])


def _ids_of_stories(folder: Path, named: str) -> dict[str, list[str]]:
    lists = sorted(folder.rglob("*.txt"))
    whole = [path for path in lists if path.name.startswith("all_")]
    found: dict[str, list[str]] = {}
    for split, pattern in _LIST_NAMES.items():
        urls = [
            line.strip()
            for path in whole or lists
            if pattern.search(path.stem)
            for line in path.read_text(encoding="utf-8", errors="surrogateescape").split("\n")
        ]
        found[split] = [hashlib.sha1(url.encode("utf-8", "surrogateescape")).hexdigest() for url in urls if url]
    if lacking := [split for split in SPLITS if not found[split]]:
        raise UserError(
            f"{named} holds .story files, but no list of URLs for {listed(lacking)}. Copy all_train.txt, all_val.txt "
            "and all_test.txt of the data set's authors into the folder."
        )
    return found


def _ids_of_xsum(folder: Path, named: str) -> dict[str, list[str]]:
    for path in sorted(folder.glob("*.json")):
        try:
            ids = json.loads(path.read_text(encoding="utf-8"))
            return {split: [str(one) for one in ids[split]] for split in SPLITS}
        except (ValueError, RecursionError, KeyError, TypeError):
            continue
    raise UserError(
        f"{named} has the folders document and summary, but no json file with the ids of {listed(SPLITS)}. Copy "
        "XSum-TRAINING-DEV-TEST-SPLIT-90-5-5.json of the data set's authors into the folder."
    )


def _by_stem(folder: Path) -> dict[str, Path]:
    files: Iterable[Path] = folder.iterdir() if folder.is_dir() else ()
    return {path.name.partition(".")[0]: path for path in files if path.is_file()}


def _state(path: Path) -> tuple[str, int, int]:
    found = path.stat()
    return path.name, found.st_size, found.st_mtime_ns
