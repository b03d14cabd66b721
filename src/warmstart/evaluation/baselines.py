"""Lead-n: the first n sentences of the document, which many models of news do not beat."""

from collections.abc import Sequence

from warmstart.evaluation.rouge import sentences

LONGEST_LEAD = 4000  # characters read to find the first sentences; splitting a whole document is slow


def lead(documents: Sequence[str], n: int) -> list[str]:
    """The first ``n`` sentences of each document, one a line."""
    return ["\n".join(sentences(document[:LONGEST_LEAD])[:n]) for document in documents]
