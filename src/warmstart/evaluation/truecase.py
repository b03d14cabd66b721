"""Give a lower-case summary the case of its source's words, for showing it. Scores are of the summary as generated."""

import re
from collections import Counter, defaultdict

_WORD = re.compile(r"[^\W\d_]+")
_OPENS_SENTENCE = re.compile(r"(?:^|[.!?:;]|\n)[\s\"'\u201c\u2018(\[]*$")
_BEFORE = 8  # characters before a word that tell whether it opens a sentence
# Words whose capital at the start of a sentence says nothing, even before a name.
_COMMON = frozenset({"a", "an", "and", "as", "at", "but", "by", "for", "from", "he", "her", "his", "if", "in", "is"})
_COMMON |= {"it", "its", "of", "on", "or", "she", "that", "the", "they", "this", "to"}


def restore_case(summary: str, document: str) -> str:
    """Write each lower-case word of a summary as its document writes it most often.

    A capital that opens a sentence counts only where it stands before another capitalized word, as in a name, or where
    the word has further capitals. Words that the document lacks, and words with a capital, stay as they are.

    Args:
        summary: A summary, such as an uncased tokenizer decodes it.
        document: The text that it summarizes.
    """
    forms = _forms(document)

    def restored(found: re.Match[str]) -> str:
        word = found[0]
        return forms[word].most_common(1)[0][0] if word in forms else word

    return _WORD.sub(restored, summary)


def _forms(document: str) -> dict[str, Counter[str]]:
    """Count the spellings of each word of a document, by the word in lower case."""
    inside: dict[str, Counter[str]] = defaultdict(Counter)
    opening: dict[str, Counter[str]] = defaultdict(Counter)
    for found in _WORD.finditer(document):
        word, start = found[0], found.start()
        if not _OPENS_SENTENCE.search(document[max(start - _BEFORE, 0) : start]):
            inside[word.lower()][word] += 1
        elif word[1:] != word[1:].lower() or _opens_a_name(word, document[found.end() :][:2]):
            opening[word.lower()][word] += 1
    return {**opening, **inside}


def _opens_a_name(word: str, following: str) -> bool:
    return word.lower() not in _COMMON and following[:1] == " " and following[1:].isupper()
