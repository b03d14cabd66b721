"""Named cleaning steps, chosen in ``data.clean`` and applied in that order.

A step changes documents (of every split), changes training targets, or drops training examples. References of
validation and test are never changed and none of their examples is dropped, because scores on changed references
cannot be compared with published ones.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from warmstart.errors import UserError

CLEANING_VERSION = 1
"""Part of the fingerprint of a split: increase it whenever the result of a step changes."""


@dataclass(frozen=True)
class Step:
    """One cleaning step; a None function leaves its input unchanged."""

    about: str
    """Description, listed in the error for an unknown step."""
    document: Callable[[str], str] | None = None
    target: Callable[[str], str] | None = None
    keep: Callable[[str, str, str], bool] | None = None
    """Whether to keep a training example, from its cleaned document, its cleaned target and their language."""


_DASH = r"\s*(?:--|-|\u2013|\u2014)?\s*"
_NAME = r"[A-Z][\w.'\u2019-]*(?:[ /](?:de |of |the )?[A-Z][\w.'\u2019-]*){0,4}"
_PLACE = rf"{_NAME}(?:,\s*{_NAME}){{0,3}}"
_CNN = re.compile(rf"^\s*(?:{_PLACE}\s*)?\((?:CNN|CNNMoney)(?: [^()]{{0,40}})?\){_DASH}")
_TASS = re.compile(r"^\s*[A-Z][^\n]{1,80}?/TASS/[.,]?\s*")
_WIRE = re.compile(r"^\s*[A-Z][\w.,'\u2019/ -]{0,60}\((?:Reuters|AP|AFP|UPI|Xinhua)\)\s*(?:--|-|\u2013|\u2014)\s*")
_MONTH = "January|February|March|April|May|June|July|August|September|October|November|December"
# Possessive quantifiers (*+, ?+, ++), because backtracking over blanks would take cubic time.
_STAMP = (
    rf"(?:PUBLISHED|UPDATED|CREATED|Last updated at)\s*+:?+\s*+\.?+\s*+[^|]{{0,40}}?(?:{_MONTH})\s++\d{{4}}(?:\s++\.)?"
)
_STAMPS = re.compile(rf"^\s*+(?:By\b.{{0,200}}?)?{_STAMP}(?:\s*+(?:\|\s*+\.?+\s*+)?+{_STAMP})*\s*+", re.DOTALL)
_BY = re.compile(r"^\s*By \. [^.]{2,80} \.(?: and [^.]{2,60} \.)?(?: Follow @@\w+ \.)?\s*")
_NEW = re.compile(r"(^|\n|[.!?]\s)[ \t]*NEW:\s*")
_GARBLED = re.compile(r'"\?(?=\S)|\ufffd')


def strip_cnn_dateline(document: str) -> str:
    """Cut the dateline of a CNN article: "LONDON, England (CNN) -- Text" and "(CNN)Text" become "Text"."""
    return _CNN.sub("", document, count=1)


def strip_wire_dateline(document: str) -> str:
    """Cut the dateline of a news agency.

    "MOSCOW, February 7. /TASS/. Text" and "SEOUL (Reuters) - Text" become "Text".
    """
    return _WIRE.sub("", _TASS.sub("", document, count=1), count=1)


def strip_by_author(document: str) -> str:
    """Cut the Daily Mail's byline: "By . A Name . PUBLISHED: . 08:21 EST, 6 December 2012 . | . UPDATED: . … ."."""
    without = _STAMPS.sub("", document, count=1)
    return without if without != document else _BY.sub("", document, count=1)


def strip_new_marker(target: str) -> str:
    """Cut CNN's mark of an updated highlight: "NEW: Text" becomes "Text"."""
    return _NEW.sub(r"\1", target)


def mend_quotes(text: str) -> str:
    """Repair quotes and dashes that a wrong decoding turned into ``"?`` or U+FFFD, if the context is unambiguous."""
    if '"?' not in text and "\ufffd" not in text:
        return text
    text = re.sub('"?\ufffd+\\??', '"', text)
    text = re.sub(r'(?<=\s)"\?(?=[\s\w])', "- ", text)  # a dash between words
    text = re.sub(r'"\?(?=[\w(])', '" ', text)  # a closing quote and the space lost with it
    return re.sub(r'"\?(?=\S)', '"', text)


def collapse_whitespace(text: str) -> str:
    """Replace each run of whitespace by one space."""
    return " ".join(text.split())


def is_garbled(text: str) -> bool:
    """Return whether quotes or dashes of a text were lost in a wrong decoding."""
    return _GARBLED.search(text) is not None


def count_words(text: str, language: str = "en") -> int:
    """Count the words between blanks; the characters in languages that do not separate words.

    Args:
        text: The text.
        language: ISO code of its language.
    """
    from warmstart.evaluation.languages import UNSPACED, words  # its libraries are needed only here

    return len(words(text, language) if language in UNSPACED else text.split())


STEPS: dict[str, Step] = {
    "strip_cnn_dateline": Step("cut PLACE (CNN) -- before a document", document=strip_cnn_dateline),
    "strip_wire_dateline": Step("cut TASS, Reuters, AP and AFP datelines", document=strip_wire_dateline),
    "strip_by_author": Step("cut the Daily Mail's By . NAME . PUBLISHED: …", document=strip_by_author),
    "strip_new_marker": Step("cut NEW: in training targets", target=strip_new_marker),
    "mend_quotes": Step("repair wrongly decoded quotes", document=mend_quotes, target=mend_quotes),
    "collapse_whitespace": Step(
        "replace runs of whitespace by one space", document=collapse_whitespace, target=collapse_whitespace
    ),
    "drop_garbled": Step(
        "drop examples with garbled training targets", keep=lambda _, target, __: not is_garbled(target)
    ),
    "drop_short_targets": Step(
        "drop examples with training targets under 4 words",
        keep=lambda _, target, language: count_words(target, language) >= 4,
    ),
    "drop_longer_than_document": Step(
        "drop examples with training targets longer than their document",
        keep=lambda document, target, language: count_words(target, language) < count_words(document, language),
    ),
}


def steps_named(names: Sequence[str]) -> list[Step]:
    """Return the steps with the given names, in the given order.

    Raises:
        UserError: A name is unknown.
    """
    unknown = [name for name in names if name not in STEPS]
    if unknown:
        known = "; ".join(f"{name} ({step.about})" for name, step in STEPS.items())
        raise UserError(f"data.clean contains unknown steps: {', '.join(unknown)}. Choose from: {known}.")
    return [STEPS[name] for name in names]


def clean_document(document: str, steps: Sequence[Step]) -> str:
    """Apply the steps to a document of any split."""
    for step in steps:
        if step.document is not None:
            document = step.document(document)
    return document


def clean_target(target: str, steps: Sequence[Step]) -> str:
    """Apply the steps to the target of a training example."""
    for step in steps:
        if step.target is not None:
            target = step.target(target)
    return target


def kept_in_training(document: str, target: str, steps: Sequence[Step], language: str = "en") -> bool:
    """Return whether the steps keep a cleaned training example.

    Args:
        document: Its cleaned document.
        target: Its cleaned target.
        steps: The steps.
        language: ISO code of their language (``data.language``).
    """
    return all(step.keep(document, target, language) for step in steps if step.keep is not None)
