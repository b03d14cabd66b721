"""What becomes of a row that cannot be used: the run ends with its file and row, or goes on without it and says so.

    bad = BadRows("data.path=x.jsonl", OnBadRow.skip)
    bad.found("not_json", "line 7", "is no json")     # raises under OnBadRow.fail, counts under OnBadRow.skip

Which texts can be used is said here too, for all readers alike.
"""

import logging
import re
from collections import Counter
from typing import Any

from warmstart.config.data import OnBadRow
from warmstart.errors import UserError, listed

SHOWN = 3  # bad rows that the log names
MAX_ROW_BYTES = 16 * 2**20
"""Longest row or text: 16 MiB, about three million tokens. A quote that is never closed makes such rows."""

_log = logging.getLogger(__name__)
_FIXES = {
    "not_utf8": "If the file is in another encoding, convert it, such as: iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW. "
}
_SURROGATE = re.compile("[\ud800-\udfff]")


class BadText(Exception):
    """A value that is no usable text: ``kind`` is the name it is counted under, the message says what it is."""

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(what)
        self.kind = kind


def too_long() -> BadText:
    """What a row or text is that is longer than ``MAX_ROW_BYTES``."""
    return BadText("too_long", f"is longer than {MAX_ROW_BYTES} bytes")


class BadRows:
    """The bad rows of one file or folder; ``where`` names it as the user did."""

    def __init__(self, where: str, policy: OnBadRow) -> None:
        self.where, self.policy = where, policy
        self.counts: Counter[str] = Counter()
        self.examples: list[str] = []

    def found(self, kind: str, row: str, what: str) -> None:
        """Take note of a bad row.

        Raises:
            UserError: ``data.on_bad_row`` is ``fail``.
        """
        if self.policy is OnBadRow.fail:
            raise UserError(
                f"{self.where}: {row} {what}. {_FIXES.get(kind, '')}Fix or delete it, or set data.on_bad_row=skip to "
                "leave such rows out and have them counted."
            )
        self.counts[kind] += 1
        if len(self.examples) < SHOWN:
            self.examples.append(f"{row} {what}")

    def report(self, read: int) -> dict[str, int]:
        """``read``, ``kept``, ``skipped`` and the skipped ones by kind; a warning in the log where there are any."""
        skipped = self.counts.total()
        if skipped:
            _log.warning(
                "%s: %d of %d rows skipped (data.on_bad_row=skip): %s%s",
                *(self.where, skipped, read, "; ".join(self.examples), "; …" if skipped > SHOWN else "."),
            )
        counts = {"read": read, "kept": read - skipped, "skipped": skipped}
        return counts | {f"skipped_{kind}": n for kind, n in sorted(self.counts.items())}


def text_of(value: Any, name: str) -> str:
    """The text that a cell holds: a string, or a list of strings as lines. ``name`` is for the message.

    Raises:
        BadText: it is something else, it is empty, or it holds what no text holds.
    """
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        value = "\n".join(value)
    if value is None:
        raise BadText(f"empty_{name}", f"has no {name}")
    if isinstance(value, dict):
        raise BadText("not_text", f"has a {name} that is not text but an object with the keys {listed(value)}")
    if not isinstance(value, str):
        raise BadText("not_text", f"has a {name} that is not text but {type(value).__name__}")
    if not value.strip():
        raise BadText(f"empty_{name}", f"has an empty {name}")
    if "\0" in value:
        raise BadText("nul_characters", f"has a NUL character in its {name}: it is binary, or in another encoding")
    if wrong := _SURROGATE.search(value):
        code = ord(wrong.group())
        if 0xDC80 <= code <= 0xDCFF:  # what the decoder made of a byte that it could not read
            raise BadText("not_utf8", f"has the byte 0x{code - 0xDC00:02x} in its {name}, which is not UTF-8")
        raise BadText("lone_surrogates", f"has half a character (U+{code:04X}) in its {name}")
    return value
