"""The rows of json: one object a line, or a list of objects that is read one after the other.

Memory does not grow with the number of rows. Any other layout is one value and is read whole, up to
``MAX_JSON_BYTES``.
"""

import json
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any, BinaryIO, TextIO

from warmstart.data.sources.bad_rows import MAX_ROW_BYTES, BadText, too_long

MAX_JSON_BYTES = 64 * 2**20
"""Longest json that is one value, such as an object of columns."""
NO_OBJECT = 'is no object such as {"document": …, "summary": …}'
_BLANKS = re.compile(r"[ \t\n\r]*")
_CHUNK = 2**16


class NotAList(Exception):
    """A text that begins like a list of rows ends in something else; the message says after which row and why."""


def json_lines(file: BinaryIO) -> Iterator[tuple[str, dict[str, Any] | BadText]]:
    """Where each row stands and the row, of which each has a line."""
    # Lines end at \n alone: json allows marks such as U+2028, where str.splitlines() also splits, inside a text.
    lines = iter(lambda: file.readline(MAX_ROW_BYTES), b"")
    first = next(lines, b"").removeprefix(b"\xef\xbb\xbf")
    for number, line in enumerate(chain([first], lines), 1):
        if len(line) == MAX_ROW_BYTES and not line.endswith(b"\n"):
            for rest in lines:
                if rest.endswith(b"\n"):
                    break
            yield f"line {number}", too_long()
        elif line.strip():
            yield f"line {number}", json_row(line)


def json_row(line: bytes) -> dict[str, Any] | BadText:
    """The row that a line holds."""
    try:
        row = json.loads(line.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError) as error:
        return BadText("not_json", f"is no json: {error}")
    return row if isinstance(row, dict) else BadText("not_json", NO_OBJECT)


def json_list(file: TextIO) -> Iterator[Any]:
    """The values of a list, one at a time.

    Raises:
        NotAList: it is damaged, or a value of it is longer than a row may be.
    """
    decoder, text, at, number = json.JSONDecoder(), "", 0, 0
    ended = False

    def more() -> None:
        """Drop what was read, and read at least as much again: a value is then decoded a few times at most."""
        nonlocal text, at, ended
        text, at = text[at:], 0
        rest = file.read(max(_CHUNK, len(text)))
        text, ended = text + rest, not rest

    def upcoming() -> str:
        nonlocal at
        while True:
            at = _end_of_blanks(text, at)
            if at < len(text) or ended:
                return text[at : at + 1]
            more()

    upcoming()
    at += 1  # the bracket, by which the caller knew that this is a list
    if upcoming() == "]":
        at += 1
    else:
        while True:
            upcoming()
            while True:
                try:
                    value, end = decoder.raw_decode(text, at)
                    # A number at the end of what was read may go on.
                    if end < len(text) or ended:
                        break
                    reason = ""
                except json.JSONDecodeError as error:
                    reason = error.msg
                except (ValueError, RecursionError) as error:
                    raise NotAList(f"row {number + 1} is no json: {error}") from None
                if ended or len(text) - at > MAX_ROW_BYTES:
                    reason = (
                        f"is no json: {reason}" if ended else f"is longer than {MAX_ROW_BYTES} bytes, or is no json"
                    )
                    raise NotAList(f"row {number + 1} {reason}")
                more()
            if end - at > MAX_ROW_BYTES:
                raise NotAList(f"row {number + 1} is longer than {MAX_ROW_BYTES} bytes")
            at, number = end, number + 1
            yield value
            mark = upcoming()
            at += 1
            if mark == "]":
                break
            if mark != ",":
                raise NotAList(f"after row {number} a comma or the end of the list is missing")
    if upcoming():
        raise NotAList(f"after row {number} the list ends, and something else follows")


def _end_of_blanks(text: str, at: int) -> int:
    found = _BLANKS.match(text, at)
    return found.end() if found else at
