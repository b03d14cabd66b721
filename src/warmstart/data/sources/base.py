"""The types that every reader produces: examples, splits that are read from disk on demand, and the source itself."""

import hashlib
import json
from abc import abstractmethod
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, overload

from warmstart.config.data import Objective
from warmstart.data.cleaning import Step, clean_document, clean_target
from warmstart.data.objectives import unlabelled_pair
from warmstart.errors import UserError

SPLITS = ("train", "validation", "test")
_READ_AT_MOST = 50_000


class Example(NamedTuple):
    """One document and its summary."""

    id: str
    document: str
    summary: str


class Source:
    """The splits of a data set, cleaned and limited.

    Args:
        splits: Examples by split name.
        name: The data set's name (``data.name``), for messages.
        report: Counts of rows read, skipped and kept, for the log.
        steps: The cleaning steps, the objective and their versions: part of the fingerprint of a split.
    """

    def __init__(
        self, splits: Mapping[str, Sequence[Example]], *, name: str, report: Mapping[str, int], steps: str = ""
    ) -> None:
        self.name = name
        self.report = dict(report)
        """Counts of rows read, skipped and kept."""
        self._splits = dict(splits)
        self._steps = steps
        self._fingerprints: dict[str, str] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the splits that were read."""
        return tuple(self._splits)

    def split(self, name: str) -> Sequence[Example]:
        """Return the examples of a split.

        Args:
            name: ``train``, ``validation`` or ``test``.

        Raises:
            UserError: The split was not read.
        """
        if name not in self._splits:
            raise UserError(f"There is no split {name!r} in data={self.name}. Choose from: {', '.join(self._splits)}.")
        return self._splits[name]

    def split_fingerprint(self, name: str) -> str:
        """Return a hash of a split's texts and their order.

        Equal hashes mean equal texts in equal order. The hash is the same in every run on the same data.
        """
        if name not in self._fingerprints:
            self._fingerprints[name] = _fingerprint(self.split(name), self._steps)
        return self._fingerprints[name]

    def with_summaries(self, name: str, summaries: Sequence[str]) -> "Source":
        """Return the same data with other summaries in one split.

        Args:
            name: The split.
            summaries: One for each of its examples, in order.
        """
        splits = self._splits | {name: ResummarizedSplit(self.split(name), summaries)}
        return Source(splits, name=self.name, report=self.report, steps=self._steps)

    def fingerprint(self) -> str:
        """Return one hash of all splits."""
        whole = "".join(self.split_fingerprint(name) for name in self._splits)
        return hashlib.sha256(whole.encode()).hexdigest()


class LazyRows(Sequence[Example]):
    """Examples that are read from disk on access.

    A subclass implements ``__len__`` and ``_read``.
    """

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
        """Read one example; a negative index counts from the end."""


class CleanedSplit(LazyRows):
    """Examples of a raw split, cleaned on access.

    Args:
        raw: The examples as the reader returns them.
        kept: Indices into ``raw`` of the examples to keep.
        steps: The cleaning steps, in order.
        training: Whether summaries are cleaned too. References of validation and test never are.
    """

    def __init__(self, raw: Sequence[Example], kept: Sequence[int], steps: Sequence[Step], *, training: bool) -> None:
        self._raw, self._kept, self._steps, self._training = raw, kept, steps, training

    def __len__(self) -> int:
        return len(self._kept)

    def _read(self, index: int) -> Example:
        return cleaned(self._raw[self._kept[index]], self._steps, training=self._training)

    @property
    def content(self) -> str:
        """A hash of the contents that needs no reading of the rows; empty if the raw split has none."""
        content: str = getattr(self._raw, "content", "")
        if content and isinstance(self._kept, array):
            content += f" {hashlib.sha256(self._kept.tobytes()).hexdigest()}"
        return content


class ResummarizedSplit(LazyRows):
    """The examples of a split with other summaries.

    Args:
        examples: The split.
        summaries: One for each example.

    Raises:
        ValueError: Their numbers differ.
    """

    def __init__(self, examples: Sequence[Example], summaries: Sequence[str]) -> None:
        if len(examples) != len(summaries):
            raise ValueError(f"There are {len(examples)} examples, but {len(summaries)} summaries.")
        self.examples, self._summaries = examples, summaries

    def __len__(self) -> int:
        return len(self.examples)

    def _read(self, index: int) -> Example:
        return self.examples[index]._replace(summary=self._summaries[index])

    @property
    def content(self) -> str:
        """A hash of the contents that needs no reading of the rows; empty if the split has none."""
        content: str = getattr(self.examples, "content", "")
        if content:
            content += f" {hashlib.sha256(json.dumps(list(self._summaries)).encode()).hexdigest()}"
        return content


def originals(examples: Sequence[Example]) -> Sequence[Example]:
    """Return the examples of a split with the summaries of the data set."""
    return examples.examples if isinstance(examples, ResummarizedSplit) else examples


class ObjectiveSplit(LazyRows):
    """Examples whose source and target are made from the documents of a split on access; summaries are not read.

    Args:
        documents: The examples with the documents, cleaned.
        objective: Any objective but ``summary``.
    """

    def __init__(self, documents: CleanedSplit, objective: Objective) -> None:
        self._documents, self._objective = documents, objective

    def __len__(self) -> int:
        return len(self._documents)

    def _read(self, index: int) -> Example:
        example = self._documents[index]
        return Example(example.id, *unlabelled_pair(self._objective, example.document, example.id))

    def unlabelled(self) -> Iterator[Example]:
        """Iterate over the documents that the examples are made from, with empty summaries."""
        return (example._replace(summary="") for example in self._documents)

    @property
    def content(self) -> str:
        """That of the documents."""
        return self._documents.content


def cleaned(example: Example, steps: Sequence[Step], *, training: bool) -> Example:
    """Apply cleaning steps to an example; the summary changes only in training."""
    target = clean_target(example.summary, steps) if training else example.summary
    return Example(example.id, clean_document(example.document, steps), target)


def _fingerprint(split: Sequence[Example], steps: str) -> str:
    # A large split on disk has a hash of its contents: reading and cleaning it row by row takes far longer. Any other
    # split is hashed whole, because a sample of its rows would miss the few rows that a new revision fixes.
    n = len(split)
    if n > _READ_AT_MOST and (content := getattr(split, "content", "")):
        return hashlib.sha256(f"{n} {steps} {content}".encode()).hexdigest()
    digest = hashlib.sha256(f"{n} ".encode())
    examples: Iterable[Example] = split
    if isinstance(split, ObjectiveSplit):
        # Its pairs follow from document, id and ``steps``, and making them takes longer than hashing.
        digest.update(steps.encode())
        examples = split.unlabelled()
    for example in examples:
        for text in example:
            encoded = text.encode("utf-8", "replace")
            digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()
