"""Read the package descriptions of Debian from the index that ``apt-get update`` fetches.

    apt-get update -o Dir::State::lists=$PWD/debian -o Acquire::Languages=en,de

Long to short description (``long``, ``short``), or the translation of both (``en`` to ``de``, from
Translation-de): each synopsis, and each paragraph where both languages have as many. One binary package is used of each
source package, because its others often have the same text. The hash of the source package decides the split (5 % test,
5 % validation) and the order, and a document occurs once. The texts have the licences of their packages; they are read
at run time and stored only in the user's own token cache.
"""

import gzip
import hashlib
import io
import lzma
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from warmstart.config.data import DataSettings
from warmstart.data.sources.bad_rows import BadRows, BadText, text_of
from warmstart.data.sources.base import SPLITS, Example
from warmstart.data.sources.own_paths import kinds_in, missing
from warmstart.errors import UserError, listed, says_nothing_of_the_file

DEFAULT_PATH = "/var/lib/apt/lists"
MAX_BYTES = 512 * 2**20
"""Largest index in bytes, unpacked. Those of Debian 12 have 50 MB."""
MIN_DOCUMENT_WORDS, MIN_TARGET_WORDS = 5, 2
VALIDATION_PERCENT = TEST_PERCENT = 5
_LONG, _SHORT = "long", "short"
_INDEX = re.compile(r"(?:^|_)(?P<kind>Translation-(?P<language>\w+)|Packages)(?:\.(?:gz|xz|lz4))?$")


def _open_lz4(path: str) -> Any:
    import pyarrow

    return pyarrow.CompressedInputStream(path, "lz4")


_OPEN: dict[str, Callable[[str], Any]] = {".gz": gzip.open, ".xz": lzma.open, ".lz4": _open_lz4}


class Description(NamedTuple):
    """The description of a package in one language."""

    synopsis: str
    paragraphs: list[str]


def read_debian(settings: DataSettings) -> tuple[Mapping[str, Sequence[Example]], Mapping[str, int]]:
    """Read and split the descriptions.

    Args:
        settings: The ``data`` group of the config: the folder of the index, and ``long`` and ``short`` or two languages
            as columns.

    Returns:
        Examples by split, whose ids are the packages, and counts of rows for the log.

    Raises:
        UserError: The index is missing or damaged, or a column is neither of these.
    """
    folder = Path(settings.path or DEFAULT_PATH).expanduser()
    if not folder.is_dir():
        raise missing("data.path", folder)
    indexes = _indexes(folder)
    languages = [name for name in indexes if name != "Packages"]
    columns = (settings.document_column, settings.summary_column)
    possible = [(_LONG, _SHORT), *((a, b) for a in languages for b in languages if a != b)]
    if "en" not in languages:
        raise UserError(
            f"data.path={folder} has no index Translation-en, but {kinds_in(folder)}. Fetch it: apt-get update "
            "-o Dir::State::lists=FOLDER -o Acquire::Languages=en, and set data.path=FOLDER."
        )
    if columns not in possible:
        raise UserError(
            f"data.document_column={columns[0]} data.summary_column={columns[1]} is not in the index of {folder}. "
            f"Choose long and short, or two of its languages: {listed(languages)}."
        )
    sources = dict(_sources(indexes.get("Packages", [])))
    needed = {"en"} if columns == (_LONG, _SHORT) else set(columns)
    found = {language: dict(_descriptions(indexes[language], language)) for language in sorted(needed)}
    bad = BadRows(f"data.path={folder}", settings.on_bad_row)
    counts: Counter[str] = Counter()
    examples: list[tuple[int, str, Example]] = []
    used: dict[str, str] = {}
    seen: set[str] = set()
    for package in sorted(next(iter(found.values()))):
        source = sources.get(package, package)
        pairs = list(_pairs(package, found, columns))
        if not pairs or used.setdefault(source, package) != package:
            continue
        for number, pair in enumerate(pairs):
            counts["rows"] += 1
            words = [len(text.split()) for text in pair]
            least = (MIN_DOCUMENT_WORDS, MIN_TARGET_WORDS) if columns == (_LONG, _SHORT) else (1, 1)
            if words[0] < least[0] or words[1] < least[1]:
                counts["short"] += 1
                continue
            try:
                document, summary = text_of(pair[0], "document"), text_of(pair[1], "summary")
            except BadText as error:
                bad.found(error.kind, f"package {package!a}", str(error))
                continue
            if document.casefold() in seen:  # otherwise one document could be in two splits
                counts["duplicate"] += 1
            else:
                seen.add(document.casefold())
                name = package if len(pairs) == 1 else f"{package}-{number}"
                examples.append((_hash(source), name, Example(name, document, summary)))
    counts["pairs"] = len(examples)
    counts.update(bad.report(counts["rows"]))
    splits: dict[str, list[Example]] = {split: [] for split in SPLITS}
    for place, _, example in sorted(examples):
        percent = place % 100
        held_out = "test" if percent < TEST_PERCENT else "validation"
        splits[held_out if percent < TEST_PERCENT + VALIDATION_PERCENT else "train"].append(example)
    return splits, counts


def _pairs(
    package: str, found: Mapping[str, Mapping[str, Description]], columns: tuple[str, str]
) -> Iterator[tuple[str, str]]:
    if columns == (_LONG, _SHORT):
        one = found["en"][package]
        yield "\n".join(one.paragraphs), one.synopsis
        return
    both = [found[language].get(package) for language in columns]
    if both[0] is None or both[1] is None:
        return
    first, second = both[0], both[1]
    texts = [(first.synopsis, second.synopsis)]
    if len(first.paragraphs) == len(second.paragraphs):
        texts += zip(first.paragraphs, second.paragraphs, strict=True)
    # A translator leaves names and unfinished parts as they are.
    yield from (pair for pair in texts if pair[0] != pair[1] and "<trans>" not in pair[1])


def _indexes(folder: Path) -> dict[str, list[Path]]:
    """Return the files by language, and those of ``Packages``."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and (name := _INDEX.search(path.name)):
            found.setdefault(name["language"] or "Packages", []).append(path)
    return found


def _sources(paths: Sequence[Path]) -> Iterator[tuple[str, str]]:
    for fields in _stanzas(paths):
        if "Package" in fields:
            yield fields["Package"], fields.get("Source", fields["Package"]).split(" ")[0]


def _descriptions(paths: Sequence[Path], language: str) -> Iterator[tuple[str, Description]]:
    for fields in _stanzas(paths):
        text = fields.get(f"Description-{language}")
        if text is not None and "Package" in fields:
            synopsis, _, rest = text.partition("\n")
            yield fields["Package"], Description(" ".join(synopsis.split()), _paragraphs(rest))


def _paragraphs(text: str) -> list[str]:
    """Join the lines of each paragraph; a line with only a dot separates them."""
    paragraphs = re.split(r"^ \.\s*$", text, flags=re.MULTILINE)
    return [joined for paragraph in paragraphs if (joined := " ".join(paragraph.split()))]


def _stanzas(paths: Sequence[Path]) -> Iterator[dict[str, str]]:
    """Yield the fields of each paragraph of an index; continuation lines keep their line breaks."""
    for path in paths:
        fields: dict[str, str] = {}
        name = ""
        with _opened(path) as file:
            for line in file:
                if line[:1] in (" ", "\t") and name:
                    fields[name] += f"\n{line.rstrip()}"
                elif line.strip():
                    name, _, value = line.rstrip().partition(":")
                    fields[name] = value.strip()
                else:
                    yield fields
                    fields, name = {}, ""
        yield fields


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open an index, packed or not; what apt writes is gzip, xz or lz4."""
    import pyarrow

    try:
        open_ = _OPEN.get(path.suffix)
        opened = path.open("rb") if open_ is None else open_(str(path))
        with opened:
            content = opened.read(MAX_BYTES + 1)
    except (OSError, EOFError, lzma.LZMAError, pyarrow.ArrowException) as error:
        if says_nothing_of_the_file(error):
            raise
        raise UserError(f"data.path: {path} is a damaged index ({error}). Run apt-get update again.") from error
    if len(content) > MAX_BYTES:
        raise UserError(f"data.path: {path} unpacks to more than {MAX_BYTES // 2**20} MiB. Fetch the index again.")
    yield io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", errors="surrogateescape")


def _hash(source: str) -> int:
    return int.from_bytes(hashlib.sha256(source.encode("utf-8", "surrogateescape")).digest())
