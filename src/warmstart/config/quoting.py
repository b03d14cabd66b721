"""Quote paths and names on the command line, so that Hydra reads them literally.

In Hydra's grammar ``data.path=notes (1).csv`` is a syntax error and ``name=1e5`` is the number 100000.0. So a value is
quoted if its option is a text and Hydra would read anything but that text.
"""

import os
import re
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Quote, QuotedString, Sweep
from hydra.errors import HydraException

from warmstart.config.schema import OPTIONS

_PATHS = frozenset(
    {
        *("ckpt", "ckpt_weights", "input", "output", "output_root", "runs", "sweep"),
        *("encoder.path", "decoder.path", "optim.teacher"),
    }
)
_HOME = re.compile(r"""(^|[\[,]\s*)(["']?)~(?=/|$)""")


def with_home(words: list[str]) -> list[str]:
    """Return the words of a command line with the home folder for ``~`` at the start of paths of models and results.

    Bash expands ``output=~/x``; zsh, dash and Python do not, and no shell expands ``runs=[~/a,~/b]``.
    """
    return [_with_home(word) for word in words]


def _with_home(word: str) -> str:
    key, equals, value = word.partition("=")
    if key.lstrip("+") not in _PATHS:
        return word
    return key + equals + _HOME.sub(lambda found: f"{found[1]}{found[2]}{os.path.expanduser('~')}", value)


def quote_texts(words: list[str]) -> list[str]:
    """Return the words of a command line, with quotes around texts that need them.

    With ``-m``, commas still separate the values of a sweep; each value is quoted separately.
    """
    parser, keys = OverridesParser.create(), _text_keys()
    sweeps = bool({"-m", "--multirun"} & set(words))
    return [_word(word, keys, parser, sweeps) for word in words]


def quote(text: str) -> str:
    """Return ``text`` in quotes that make Hydra read it literally."""
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
    if "'" in value or '"' in value:  # the user has quoted at least a part of it
        return word
    return f"{key}=" + ",".join(
        _word(f"{key}={one}", keys, parser, False).partition("=")[2] for one in value.split(",")
    )


def _text_keys() -> set[str]:
    """Return the keys of all options that are texts."""
    return {key for key, one in OPTIONS.items() if one.kind in (str, str | None)}
