"""Lead-n: the first n sentences of the document, which many models of news do not beat."""

from collections.abc import Sequence

from warmstart.evaluation.rouge import split_line

READ = 600  # characters a sentence read at first; splitting a whole document is slow


def lead(documents: Sequence[str], n: int) -> list[str]:
    """The first ``n`` sentences of each document, one a line."""
    return ["\n".join(first_sentences(document, n)) for document in documents]


def first_sentences(document: str, n: int) -> list[str]:
    """The first ``n`` sentences of ``document``, whose lines may be sentences or paragraphs."""
    found: list[str] = []
    for line in document.splitlines():
        if len(found) >= n:
            break
        if line := line.strip():
            found += _first_of_line(line, n - len(found))
    return found[:n]


def _first_of_line(line: str, n: int) -> list[str]:
    length = READ * n
    while True:
        parts = split_line(line[:length])
        # The last part of a cut text may be cut as well: one more than is wanted makes the wanted ones whole.
        if len(parts) > n or length >= len(line):
            return parts[:n]
        length *= 2
