"""Handling of unusable rows (``data.on_bad_row``) and the check of texts, for all readers.

bad = BadRows("data.path=x.jsonl", OnBadRow.skip)
bad.found("not_json", "line 7", "is not valid JSON")     # OnBadRow.fail raises, OnBadRow.skip counts
"""

import logging
import re
from collections import Counter
from typing import Any

from warmstart.config.data import OnBadRow
from warmstart.errors import UserError, listed

SHOWN = 3  # skipped rows that the log quotes
MAX_ROW_BYTES = 16 * 2**20
"""Longest row or text in bytes, about three million tokens. Longer rows usually come from an unclosed quote."""

_log = logging.getLogger(__name__)
_FIXES = {"not_utf8": "If the file has another encoding, set it: data.encoding=cp1252 (Western Windows), cp1251, … "}
_SURROGATE = re.compile("[\ud800-\udfff]")


class BadText(Exception):
    """A value that cannot be used as text.

    Args:
        kind: The name under which the row is counted.
        what: What is wrong, to follow the row's location in a message: "has an empty summary".
    """

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(what)
        self.kind = kind


def too_long() -> BadText:
    """Return the error for a row or text longer than ``MAX_ROW_BYTES``."""
    return BadText("too_long", f"is longer than {MAX_ROW_BYTES} bytes")


class BadRows:
    """Collects the unusable rows of one file or folder.

    Args:
        where: The option and path as the user gave them, such as ``data.path=x.jsonl``.
        policy: Whether an unusable row ends the run or is skipped.
    """

    def __init__(self, where: str, policy: OnBadRow) -> None:
        self.where, self.policy = where, policy
        self.counts: Counter[str] = Counter()
        self.examples: list[str] = []

    def found(self, kind: str, row: str, what: str) -> None:
        """Record an unusable row.

        Args:
            kind: The name under which the row is counted.
            row: Its location, such as "line 7".
            what: What is wrong with it.

        Raises:
            UserError: ``data.on_bad_row`` is ``fail``.
        """
        if self.policy is OnBadRow.fail:
            raise UserError(
                f"{self.where}: {row} {what}. {_FIXES.get(kind, '')}Fix or delete the row, or set "
                "data.on_bad_row=skip to skip and count such rows."
            )
        self.counts[kind] += 1
        if len(self.examples) < SHOWN:
            self.examples.append(f"{row} {what}")

    def skipped(self, read: int) -> str:
        """Return a sentence on the rows that were skipped of ``read`` rows; empty if there are none."""
        skipped = self.counts.total()
        if not skipped:
            return ""
        examples = "; ".join(self.examples) + ("; …" if skipped > SHOWN else ".")
        return f"{self.where}: {skipped} of {read} rows skipped (data.on_bad_row=skip): {examples}"

    def report(self, read: int) -> dict[str, int]:
        """Return the counts and log a warning if rows were skipped.

        Args:
            read: Number of rows read.

        Returns:
            ``read``, ``kept``, ``skipped``, and ``skipped_KIND`` for each kind.
        """
        skipped = self.counts.total()
        if skipped:
            _log.warning("%s", self.skipped(read))
        counts = {"read": read, "kept": read - skipped, "skipped": skipped}
        return counts | {f"skipped_{kind}": n for kind, n in sorted(self.counts.items())}


def text_of(value: Any, name: str, join: str = "\n") -> str:
    """Return the text of a cell.

    Args:
        value: A string, or a list of strings.
        name: What the text is (document, summary or id), for the message.
        join: What stands between the strings of a list.

    Raises:
        BadText: The value is not text, is empty, or contains NUL characters or bytes that are not UTF-8.
    """
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        value = join.join(value)
    if value is None:
        raise BadText(f"empty_{name}", f"has no {name}")
    if isinstance(value, dict):
        raise BadText(
            "not_text",
            f"has a {name} that is not text but an object with the keys {listed(value)}; a key is requested as "
            "COLUMN.KEY",
        )
    if not isinstance(value, str):
        raise BadText("not_text", f"has a {name} that is not text but {type(value).__name__}")
    if not value.strip():
        raise BadText(f"empty_{name}", f"has an empty {name}")
    if "\0" in value:
        raise BadText("nul_characters", f"has a NUL character in its {name}: it is binary or in another encoding")
    if wrong := _SURROGATE.search(value):
        code = ord(wrong.group())
        if 0xDC80 <= code <= 0xDCFF:  # "surrogateescape" maps an undecodable byte to this range
            raise BadText("not_utf8", f"has the byte 0x{code - 0xDC00:02x} in its {name}, which is not UTF-8")
        raise BadText("lone_surrogates", f"has an unpaired surrogate (U+{code:04X}) in its {name}")
    return value
