"""The lead-n baseline: the first n sentences of the document, which many news models do not beat."""

from collections.abc import Sequence

from warmstart.evaluation.rouge import split_line

FIRST_READ = 600  # characters searched for sentences at first, because splitting a whole document is slow


def lead(documents: Sequence[str], n: int) -> list[str]:
    """Return the first ``n`` sentences of each document, one per line."""
    return ["\n".join(first_sentences(document, n)) for document in documents]


def first_sentences(document: str, n: int) -> list[str]:
    """Return the first ``n`` sentences of a document, whose lines may be sentences or paragraphs."""
    found: list[str] = []
    for line in document.splitlines():
        if len(found) >= n:
            break
        if line := line.strip():
            found += _first_of_line(line, n - len(found))
    return found[:n]


def _first_of_line(line: str, n: int) -> list[str]:
    length = FIRST_READ * n
    while True:
        found = split_line(line[:length])
        # The last sentence of a truncated text may be truncated, so one more sentence than wanted is needed.
        if len(found) > n or length >= len(line):
            return found[:n]
        length *= 2
