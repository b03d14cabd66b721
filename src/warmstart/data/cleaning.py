"""Named cleaning steps, chosen in ``data.clean`` and applied in the order given there.

A step changes documents (of every split), or training targets, or says which training examples to leave out.
References of validation and test are never altered, and none of their examples is left out: a score on an altered
reference cannot be compared with anyone's.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from warmstart.errors import UserError

CLEANING_VERSION = 1
"""Part of the token cache's fingerprint: raise it whenever a step changes what it does."""


@dataclass(frozen=True)
class Step:
    """What one step does; ``about`` is its line in the error message of an unknown name."""

    about: str
    document: Callable[[str], str] | None = None
    target: Callable[[str], str] | None = None
    keep: Callable[[str, str], bool] | None = None


_DASH = r"\s*(?:--|-|\u2013|\u2014)?\s*"
_NAME = r"[A-Z][\w.'\u2019-]*(?:[ /](?:de |of |the )?[A-Z][\w.'\u2019-]*){0,4}"
_PLACE = rf"{_NAME}(?:,\s*{_NAME}){{0,3}}"
_CNN = re.compile(rf"^\s*(?:{_PLACE}\s*)?\((?:CNN|CNNMoney)(?: [^()]{{0,40}})?\){_DASH}")
_TASS = re.compile(r"^\s*[A-Z][^\n]{1,80}?/TASS/[.,]?\s*")
_WIRE = re.compile(r"^\s*[A-Z][\w.,'\u2019/ -]{0,60}\((?:Reuters|AP|AFP|UPI|Xinhua)\)\s*(?:--|-|\u2013|\u2014)\s*")
_MONTH = "January|February|March|April|May|June|July|August|September|October|November|December"
# Possessive (*+, ?+, ++): blanks that could be shared out among several places take cubic time where nothing follows.
_STAMP = (
    rf"(?:PUBLISHED|UPDATED|CREATED|Last updated at)\s*+:?+\s*+\.?+\s*+[^|]{{0,40}}?(?:{_MONTH})\s++\d{{4}}(?:\s++\.)?"
)
_STAMPS = re.compile(rf"^\s*+(?:By\b.{{0,200}}?)?{_STAMP}(?:\s*+(?:\|\s*+\.?+\s*+)?+{_STAMP})*\s*+", re.DOTALL)
_BY = re.compile(r"^\s*By \. [^.]{2,80} \.(?: and [^.]{2,60} \.)?(?: Follow @@\w+ \.)?\s*")
_NEW = re.compile(r"(^|\n|[.!?]\s)[ \t]*NEW:\s*")
_GARBLED = re.compile(r'"\?(?=\S)|\ufffd')


def strip_cnn_dateline(document: str) -> str:
    """ "LONDON, England (CNN) -- Text" and "(CNN)Text" become "Text"."""
    return _CNN.sub("", document, count=1)


def strip_wire_dateline(document: str) -> str:
    """ "MOSCOW, February 7. /TASS/. Text" and "SEOUL (Reuters) - Text" become "Text"."""
    return _WIRE.sub("", _TASS.sub("", document, count=1), count=1)


def strip_by_author(document: str) -> str:
    """Take off the Daily Mail's head: "By . A Name . PUBLISHED: . 08:21 EST, 6 December 2012 . | . UPDATED: . … ."."""
    without = _STAMPS.sub("", document, count=1)
    return without if without != document else _BY.sub("", document, count=1)


def strip_new_marker(target: str) -> str:
    """CNN's highlights mark what an update added: "NEW: Text" becomes "Text"."""
    return _NEW.sub(r"\1", target)


def mend_quotes(text: str) -> str:
    """Repair typographic marks that a wrong decoding left as ``"?`` or U+FFFD, as far as the place tells which."""
    if '"?' not in text and "\ufffd" not in text:
        return text
    text = re.sub('"?\ufffd+\\??', '"', text)
    text = re.sub(r'(?<=\s)"\?(?=[\s\w])', "- ", text)  # a dash between words
    text = re.sub(r'"\?(?=[\w(])', '" ', text)  # a closing quote, and the space that was lost with it
    return re.sub(r'"\?(?=\S)', '"', text)


def collapse_whitespace(text: str) -> str:
    """Runs of blanks and line ends become one space."""
    return " ".join(text.split())


def is_garbled(text: str) -> bool:
    """Whether marks were lost to a wrong decoding."""
    return _GARBLED.search(text) is not None


STEPS: dict[str, Step] = {
    "strip_cnn_dateline": Step("cut PLACE (CNN) -- before a document", document=strip_cnn_dateline),
    "strip_wire_dateline": Step("cut TASS, Reuters, AP and AFP datelines", document=strip_wire_dateline),
    "strip_by_author": Step("cut the Daily Mail's By . NAME . PUBLISHED: …", document=strip_by_author),
    "strip_new_marker": Step("cut NEW: in training targets", target=strip_new_marker),
    "mend_quotes": Step("repair wrongly decoded quotes", document=mend_quotes, target=mend_quotes),
    "collapse_whitespace": Step("one space for any blanks", document=collapse_whitespace, target=collapse_whitespace),
    "drop_garbled": Step("leave out garbled training targets", keep=lambda _, target: not is_garbled(target)),
    "drop_short_targets": Step("leave out training targets under 4 words", keep=lambda _, t: len(t.split()) >= 4),
    "drop_longer_than_document": Step(
        "leave out training targets longer than their document", keep=lambda d, t: len(t.split()) < len(d.split())
    ),
}


def steps_named(names: Sequence[str]) -> list[Step]:
    """The steps of these names, in their order.

    Raises:
        UserError: a name is unknown.
    """
    unknown = [name for name in names if name not in STEPS]
    if unknown:
        known = "; ".join(f"{name} ({step.about})" for name, step in STEPS.items())
        raise UserError(f"data.clean names no known step: {', '.join(unknown)}. Choose from: {known}.")
    return [STEPS[name] for name in names]


def clean_document(document: str, steps: Sequence[Step]) -> str:
    """A document of any split."""
    for step in steps:
        if step.document is not None:
            document = step.document(document)
    return document


def clean_target(target: str, steps: Sequence[Step]) -> str:
    """The target of a training example."""
    for step in steps:
        if step.target is not None:
            target = step.target(target)
    return target


def kept_in_training(document: str, target: str, steps: Sequence[Step]) -> bool:
    """Whether a cleaned training example stays."""
    return all(step.keep(document, target) for step in steps if step.keep is not None)
