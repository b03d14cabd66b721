"""Summaries without a model, which a trained model should beat: copies, a rule, and answers from the training examples.

    texts = baseline_texts(["lead", "nearest"], documents, training, lead_sentences=3)
    texts["lead1"], texts["lead3"], texts["nearest"]

``data.baselines`` chooses among them for each data set. The first sentences are hard to beat for many news models; the
nearest training document and the most frequent target show what a model gets from its training targets only.
"""

import math
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np

from warmstart.evaluation.languages import split_line, words
from warmstart.evaluation.oracle import oracle

FIRST_READ = 600  # characters searched for sentences at first, because splitting a whole document is slow
MOST_TRAINING_EXAMPLES = 20_000
"""Training examples that the baselines read at most: a sample that is the same for every run on the same examples."""
OF_TRAINING = ("nearest", "most_frequent")
"""Baselines that use the training examples."""
NOT_OF_DOCUMENTS = (*OF_TRAINING, "oracle")
"""Baselines whose texts cannot be made again from the documents."""
UPPER_BOUNDS = ("oracle",)
"""Baselines that read the references. They bound what a kind of model can reach; no model has to beat them."""
COPULA_WORDS = 9
LABELS = {
    "copula": "copula rule",
    "nearest": "nearest training text",
    "most_frequent": "most frequent target",
    "source": "copied source",
    "oracle": "oracle sentences",
}
"""Names for people; a lead is called by its name in result.json."""

Row = TypeVar("Row")

_COPULA = re.compile(r"\b(?:is|are|was|were)\s+(?:(?:a|an|the)\s+)?", re.IGNORECASE)
_CLAUSE_END = re.compile(r",|\.(?=\s|$)")
_TERM = re.compile(r"\b\w\w+\b")


def to_beat(baselines: Mapping[str, Row]) -> dict[str, Row]:
    """Return the baselines, by name in result.json, without upper bounds."""
    return {name: row for name, row in baselines.items() if name not in UPPER_BOUNDS}


class Pair(Protocol):
    """A training example."""

    @property
    def document(self) -> str:
        """The source text."""

    @property
    def summary(self) -> str:
        """The target text."""


def baseline_texts(
    names: Sequence[str],
    documents: Sequence[str],
    training: Sequence[Pair] = (),
    *,
    references: Sequence[str] = (),
    lead_sentences: int = 1,
    language: str = "en",
) -> dict[str, list[str]]:
    """Return the summary of each document by each baseline.

    Args:
        names: The baselines, as in ``data.baselines``.
        documents: The documents to summarize.
        training: The training examples; at most ``MOST_TRAINING_EXAMPLES`` of them are read.
        references: The target of each document, for ``oracle``.
        lead_sentences: ``lead`` stands for ``lead1`` and for the lead of this many sentences.
        language: ISO code of the documents' language.

    Returns:
        By name in result.json, such as ``lead1``, the texts in the order of the documents.

    Raises:
        ValueError: A baseline needs training examples and there are none, or a name is unknown.
    """
    found: dict[str, list[str]] = {}
    pool = training_sample(training) if set(names) & set(OF_TRAINING) else []
    for name in names:
        match name:
            case "lead":
                found |= {f"lead{n}": lead(documents, n, language) for n in sorted({1, lead_sentences})}
            case "nearest":
                found[name] = nearest(documents, pool, language)
            case "most_frequent":
                found[name] = [most_frequent(pair.summary for pair in pool)] * len(documents)
            case "oracle":
                found[name] = oracle(documents, references, language=language)
            case _:
                found[name] = from_documents(name, documents, language)
    return found


def from_documents(name: str, documents: Sequence[str], language: str = "en") -> list[str]:
    """Return the texts of a baseline that needs the documents only.

    Args:
        name: Its name in result.json: ``lead1``, ``lead3``, ``copula`` or ``source``.
        documents: The documents.
        language: ISO code of their language.

    Raises:
        ValueError: There is no such baseline.
    """
    if name == "copula":
        return copula(documents)
    if name == "source":
        return copied_source(documents)
    if not re.fullmatch(r"lead[1-9]\d*", name):
        raise ValueError(f"{name!r} is not a baseline of documents.")
    return lead(documents, int(name.removeprefix("lead")), language)


def lead(documents: Sequence[str], n: int, language: str = "en") -> list[str]:
    """Return the first ``n`` sentences of each document, one per line."""
    return ["\n".join(first_sentences(document, n, language)) for document in documents]


def copied_source(documents: Sequence[str]) -> list[str]:
    """Return each document as it is: what a translation model gets that only copies."""
    return list(documents)


def copula(documents: Sequence[str]) -> list[str]:
    """Describe the subject of each document by an English rule.

    The description follows the first "is", "are", "was" or "were" (and an article, if one follows), and goes to the
    first comma or full stop, but has ``COPULA_WORDS`` words at most. A document without such a verb is described by its
    first words.
    """
    return [_described(document) for document in documents]


def most_frequent(targets: Iterable[str]) -> str:
    """Return the most frequent target, the first one among equals.

    Raises:
        ValueError: There are no targets.
    """
    counts = Counter(targets)
    if not counts:
        raise ValueError("The most frequent target needs training examples.")
    return counts.most_common(1)[0][0]


def nearest(documents: Sequence[str], training: Sequence[Pair], language: str = "en") -> list[str]:
    """Return the target of the training document that is most similar to each document.

    The similarity is the cosine of tf-idf vectors with the definition of scikit-learn: words of two characters or more
    in lower case, counts times ln((1 + n) / (1 + df)) + 1. In languages other than English, words are those of
    ``warmstart.evaluation.languages``, of any length. The first one among equals is taken, and the first training
    example for a document that shares no word with any.

    Args:
        documents: The documents.
        training: The training examples, all in memory.
        language: ISO code of the documents' language.

    Raises:
        ValueError: There are no training examples.
    """
    if not training:
        raise ValueError("The nearest training document needs training examples.")
    index = _Index((pair.document for pair in training), language)
    return [training[index.nearest_to(document)].summary for document in documents]


def training_sample(training: Sequence[Pair]) -> list[Pair]:
    """Return the training examples, or a sample of ``MOST_TRAINING_EXAMPLES`` in their order."""
    n = len(training)
    if n <= MOST_TRAINING_EXAMPLES:
        return list(training)
    # Only the legacy generator returns the same numbers in every release of NumPy (NEP 19).
    chosen = np.random.RandomState(0).permutation(n)[:MOST_TRAINING_EXAMPLES]
    return [training[int(i)] for i in np.sort(chosen)]


class _Index:
    """An inverted index of documents with tf-idf weights.

    Args:
        documents: The documents; each is read once.
        language: ISO code of their language.
    """

    def __init__(self, documents: Iterable[str], language: str) -> None:
        self._language = language
        found: dict[str, tuple[array[int], array[int]]] = {}
        self._n = 0
        for text in documents:
            for term, count in _terms(text, language).items():
                rows, counts = found.setdefault(term, (array("i"), array("i")))
                rows.append(self._n)
                counts.append(count)
            self._n += 1
        self._postings: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        squares = np.zeros(self._n)
        for term, (rows, counts) in found.items():
            of = np.frombuffer(rows, dtype=np.int32)
            inverse_frequency = math.log((1 + self._n) / (1 + len(of))) + 1
            weights = np.frombuffer(counts, dtype=np.int32) * inverse_frequency
            squares[of] += weights**2
            self._postings[term] = of, (weights * inverse_frequency).astype(np.float32)
        self._norms = np.sqrt(np.maximum(squares, 1e-12))

    def nearest_to(self, document: str) -> int:
        """Return the position of the document with the highest cosine."""
        scores = np.zeros(self._n)
        for term, count in _terms(document, self._language).items():
            if term in self._postings:
                rows, weights = self._postings[term]
                scores[rows] += count * weights  # the weights hold the square of the inverse frequency
        return int(np.argmax(scores / self._norms))


def _terms(text: str, language: str) -> Counter[str]:
    return Counter(_TERM.findall(text.lower()) if language == "en" else words(text, language))


def _described(document: str) -> str:
    found = _COPULA.search(document)
    text = _CLAUSE_END.split(document[found.end() :], maxsplit=1)[0] if found else document
    return " ".join(text.split()[:COPULA_WORDS])


def first_sentences(document: str, n: int, language: str = "en") -> list[str]:
    """Return the first ``n`` sentences of a document, whose lines may be sentences or paragraphs."""
    found: list[str] = []
    for line in document.splitlines():
        if len(found) >= n:
            break
        if line := line.strip():
            found += _first_of_line(line, n - len(found), language)
    return found[:n]


def _first_of_line(line: str, n: int, language: str) -> list[str]:
    length = FIRST_READ * n
    while True:
        found = split_line(line[:length], language)
        # The last sentence of a truncated text may be truncated, so one more sentence than wanted is needed.
        if len(found) > n or length >= len(line):
            return found[:n]
        length *= 2
