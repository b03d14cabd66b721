"""The sentences of a document that are closest to its summary, chosen greedily (Liu & Lapata 2019).

The score is the sum of the F measures of ROUGE-1 and ROUGE-2 over sets of n-grams, as in BertSum's code. It labels
documents for extractive models, and is their upper bound as the baseline ``oracle``.
"""

import re
from collections.abc import Sequence

from warmstart.evaluation.languages import split_line, words

SENTENCES = 3
_NOT_A_WORD = re.compile(r"[^a-zA-Z0-9 ]")


def greedy_oracle(sentences: Sequence[str], summary: str, most: int = SENTENCES, language: str = "en") -> list[int]:
    """Choose sentences one by one, each the one that raises the score most, while one raises it.

    Args:
        sentences: The sentences of the document.
        summary: Its summary.
        most: Largest number of sentences.
        language: ISO code of the texts' language.

    Returns:
        Their positions in ascending order; of equal ones the first.
    """
    tokens = [_words(sentence, language) for sentence in sentences]
    own = [(_ngrams(1, one), _ngrams(2, one)) for one in tokens]
    reference = _words(" ".join(summary.split()), language)
    wanted = _ngrams(1, reference), _ngrams(2, reference)
    chosen: list[int] = []
    both: tuple[set[tuple[str, ...]], set[tuple[str, ...]]] = (set(), set())
    best = 0.0
    while len(chosen) < most:
        found = None
        for i, (unigrams, bigrams) in enumerate(own):
            if i in chosen:
                continue
            score = f_measure(both[0] | unigrams, wanted[0]) + f_measure(both[1] | bigrams, wanted[1])
            if score > best:
                best, found = score, i
        if found is None:
            break
        chosen.append(found)
        both = both[0] | own[found][0], both[1] | own[found][1]
    return sorted(chosen)


def f_measure(found: set[tuple[str, ...]], wanted: set[tuple[str, ...]]) -> float:
    """Return the F measure of two sets of n-grams."""
    common = len(found & wanted)
    precision, recall = common / max(len(found), 1), common / max(len(wanted), 1)
    return 2 * precision * recall / (precision + recall + 1e-8)


def oracle(
    documents: Sequence[str], references: Sequence[str], most: int = SENTENCES, language: str = "en"
) -> list[str]:
    """Return the oracle sentences of each document, one per line.

    Args:
        documents: The documents.
        references: Their summaries.
        most: Largest number of sentences.
        language: ISO code of the texts' language.
    """
    found = []
    for document, reference in zip(documents, references, strict=True):
        lines = (line.strip() for line in document.splitlines())
        sentences = [sentence for line in lines if line for sentence in split_line(line, language)]
        found.append("\n".join(sentences[i] for i in greedy_oracle(sentences, reference, most, language)))
    return found


def _words(text: str, language: str) -> list[str]:
    return _NOT_A_WORD.sub("", text.lower()).split() if language == "en" else words(text, language)


def _ngrams(n: int, tokens: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)}
