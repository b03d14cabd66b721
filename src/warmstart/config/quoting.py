"""Paths and names on the command line, as they are.

Hydra reads each value by a grammar of its own, in which ``data.path=notes (1).csv`` is a syntax error and ``name=1e5``
is the number 100000.0. Here the values of all options whose type is text are quoted where that grammar would read
anything but the same text.
"""

from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Quote, QuotedString, Sweep
from hydra.errors import HydraException

from warmstart.config.schema import OPTIONS


def quote_texts(words: list[str]) -> list[str]:
    """The words of a command line, whose texts are quoted where they have to be.

    With ``-m`` a comma still separates the values of a sweep, each of which is quoted by itself.
    """
    parser, keys = OverridesParser.create(), _text_keys()
    sweeps = bool({"-m", "--multirun"} & set(words))
    return [_word(word, keys, parser, sweeps) for word in words]


def quote(text: str) -> str:
    """``text`` as a value that Hydra reads as this text."""
    return QuotedString(text, Quote.single).with_quotes()


def _word(word: str, keys: set[str], parser: OverridesParser, sweeps: bool) -> str:
    key, _, value = word.partition("=")
    if key.lstrip("+") not in keys or not value:
        return word
    try:
        read: Any = parser.parse_override(word).value()
    except HydraException:
        read = HydraException
    listed = isinstance(read, ChoiceSweep) and read.simple_form
    if read is None or isinstance(read, str) or (isinstance(read, Sweep) and not listed):
        return word
    if not sweeps:
        return f"{key}={quote(value)}"
    if "'" in value or '"' in value:  # quoted already, at least in part
        return word
    return f"{key}=" + ",".join(
        _word(f"{key}={one}", keys, parser, False).partition("=")[2] for one in value.split(",")
    )


def _text_keys() -> set[str]:
    """Every option whose type is text."""
    return {key for key, one in OPTIONS.items() if one.kind in (str, str | None)}
