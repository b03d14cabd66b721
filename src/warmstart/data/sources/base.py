"""Where the texts come from: one reader for each ``data.kind``, and what is done to all of them alike.

    source = load_source(settings)
    source.split("train")[0].document

The reader gives raw splits; here they are cleaned, and a limit takes a sample of them. Splits of the hub data set and
of the user's files stay on disk and are read and cleaned row by row; all others are lists.
"""

import hashlib
import zlib
from abc import abstractmethod
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple, overload

import numpy as np

from warmstart.config.data import DataKind, DataSettings
from warmstart.data.cleaning import (
    CLEANING_VERSION,
    Step,
    clean_document,
    clean_target,
    kept_in_training,
    steps_named,
)
from warmstart.errors import UserError

SPLITS = ("train", "validation", "test")
_READ_AT_MOST = 50_000


class Example(NamedTuple):
    """One pair of texts."""

    id: str
    document: str
    summary: str


class Source:
    """The three splits of a data set, as they are used."""

    def __init__(
        self, splits: Mapping[str, Sequence[Example]], *, name: str, report: Mapping[str, int], steps: str = ""
    ):
        self.name = name
        self.report = dict(report)
        """What was read, left out and kept, for the log."""
        self._splits = dict(splits)
        self._steps = steps
        self._fingerprints: dict[str, str] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The splits that were read."""
        return tuple(self._splits)

    def split(self, name: str) -> Sequence[Example]:
        """The examples of ``train``, ``validation`` or ``test``."""
        if name not in self._splits:
            raise UserError(f"There is no split {name!r} in data={self.name}. Choose from: {', '.join(self._splits)}.")
        return self._splits[name]

    def split_fingerprint(self, name: str) -> str:
        """The same only for splits that hold the same texts in the same order, and in every run on the same data."""
        if name not in self._fingerprints:
            self._fingerprints[name] = _fingerprint(self.split(name), self._steps)
        return self._fingerprints[name]

    def fingerprint(self) -> str:
        """The three splits' fingerprints in one."""
        whole = "".join(self.split_fingerprint(name) for name in self._splits)
        return hashlib.sha256(whole.encode()).hexdigest()


class LazyRows(Sequence[Example]):
    """Examples that are read when they are asked for: a subclass says how many there are, and reads one."""

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self._read(i) for i in range(*index.indices(len(self)))]
        return self._read(index)

    def __iter__(self) -> Iterator[Example]:
        return (self._read(i) for i in range(len(self)))

    @abstractmethod
    def _read(self, index: int) -> Example:
        """One example; an index below zero counts from the end."""


class CleanedSplit(LazyRows):
    """Rows of a lazy raw split, cleaned when they are read."""

    def __init__(self, raw: Sequence[Example], kept: Sequence[int], steps: Sequence[Step], *, training: bool) -> None:
        self._raw, self._kept, self._steps, self._training = raw, kept, steps, training

    def __len__(self) -> int:
        return len(self._kept)

    def _read(self, index: int) -> Example:
        return cleaned(self._raw[self._kept[index]], self._steps, training=self._training)

    @property
    def content(self) -> str:
        """What the raw rows know of their own contents without being read, and which of them are kept.

        Empty where they know nothing.
        """
        content: str = getattr(self._raw, "content", "")
        if content and isinstance(self._kept, array):
            content += f" {hashlib.sha256(self._kept.tobytes()).hexdigest()}"
        return content


def cleaned(example: Example, steps: Sequence[Step], *, training: bool) -> Example:
    """One example after the steps; the target changes in training alone."""
    target = clean_target(example.summary, steps) if training else example.summary
    return Example(example.id, clean_document(example.document, steps), target)


def load_source(settings: DataSettings, splits: Sequence[str] = SPLITS) -> Source:
    """Read the data set that ``conf/data`` chose.

    Args:
        settings: Which data set, and how it is cleaned and limited.
        splits: The splits to give. Files of the others are not opened; rows that belong to them are set aside.

    Raises:
        UserError: it cannot be read; the message names the option to change.
    """
    steps = steps_named(settings.clean)
    raw, report = _read(settings, splits)
    report = dict(report)
    found: dict[str, Sequence[Example]] = {}
    for name in splits:
        limit = getattr(settings, f"limit_{name}")
        if limit is not None and limit < 1:
            raise UserError(f"data.limit_{name}={limit} leaves no example. Set 1 or more, or null for all.")
        found[name] = _prepared(raw[name], steps, limit, name)
        report[f"{name}_read"], report[f"{name}_examples"] = len(raw[name]), len(found[name])
        report[f"{name}_sampled"] = int(len(found[name]) == limit and limit < len(raw[name]))
        if not found[name]:
            raise UserError(
                f"data={settings.name}: no {name} example is left of {len(raw[name])} after data.clean="
                f"{settings.clean}. Take steps out of data.clean, or give more data."
            )
    return Source(found, name=settings.name, report=report, steps=f"{CLEANING_VERSION} {settings.clean}")


def _read(settings: DataSettings, splits: Sequence[str]) -> tuple[Mapping[str, Sequence[Example]], Mapping[str, int]]:
    # Imported here: a reader's libraries take seconds, and only one reader is used.
    match settings.kind:
        case DataKind.cnn_dailymail:
            from warmstart.data.sources.hub import read_cnn_dailymail as read
        case DataKind.files:
            from warmstart.data.sources.files import read_files

            return read_files(settings, splits)
        case DataKind.news:
            from warmstart.data.sources.news import read_news as read
        case DataKind.written:
            from warmstart.data.sources.synthetic import read_written as read
    return read(settings)


def _prepared(raw: Sequence[Example], steps: list[Step], limit: int | None, name: str) -> Sequence[Example]:
    training = name == "train"
    every = CleanedSplit(raw, range(len(raw)), steps, training=training)
    rows: Iterable[int] = range(len(raw)) if limit is None or limit >= len(raw) else _random_order(len(raw), name)
    if training and any(step.keep for step in steps):

        def usable(i: int) -> bool:
            example = every[i]
            return kept_in_training(example.document, example.summary, steps)

        rows = filter(usable, rows)
    chosen: Sequence[int] = rows if isinstance(rows, range) else array("q", sorted(islice(rows, limit)))
    if isinstance(raw, list):
        return [every[i] for i in chosen]
    return CleanedSplit(raw, chosen, steps, training=training)


def _random_order(rows: int, split: str) -> list[int]:
    """The order in which a limit takes rows: a file may be sorted, by date or by publisher.

    It depends only on the split and its number of rows, never on the run's seed: all runs are judged on the same
    examples, and a smaller limit takes some of those of a larger one.
    """
    seed = zlib.crc32(f"{split} {rows}".encode())
    # Not default_rng: only the legacy generator's numbers are the same in every release of NumPy (NEP 19).
    return np.random.RandomState(seed).permutation(rows).tolist()


def _fingerprint(examples: Sequence[Example], steps: str) -> str:
    # A large split on disk knows its contents: reading and cleaning it row by row takes far longer. All others are
    # hashed whole; a sample of the rows would miss the few that another revision mends.
    n = len(examples)
    if n > _READ_AT_MOST and (content := getattr(examples, "content", "")):
        return hashlib.sha256(f"{n} {steps} {content}".encode()).hexdigest()
    digest = hashlib.sha256(f"{n} ".encode())
    for example in examples:
        for text in example:
            encoded = text.encode("utf-8", "replace")
            digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()
