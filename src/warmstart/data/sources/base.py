"""The types that every reader produces: examples, splits that are read from disk on demand, and the source itself."""

import hashlib
from abc import abstractmethod
from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, overload

from warmstart.data.cleaning import Step, clean_document, clean_target
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
