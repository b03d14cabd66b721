"""Stream the rows of a JSON file: one object per line, or a list of objects.

Memory does not grow with the number of rows. Any other layout is read whole, up to ``MAX_JSON_BYTES``.
"""

import json
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any, BinaryIO, TextIO

from warmstart.data.sources.bad_rows import MAX_ROW_BYTES, BadText, too_long

MAX_JSON_BYTES = 64 * 2**20
"""Largest JSON file in bytes that is read whole, such as an object of columns."""
NO_OBJECT = 'is not an object such as {"document": …, "summary": …}'
_BLANKS = re.compile(r"[ \t\n\r]*")
_CHUNK = 2**16


class NotAList(Exception):
    """A JSON file starts as a list but is not a valid one; the message says after which row and why."""


def json_lines(file: BinaryIO) -> Iterator[tuple[str, dict[str, Any] | BadText]]:
    """Yield the location ("line 7") and the row of each line that is not blank."""
    # Lines end only at \n: JSON strings may contain characters such as U+2028, where str.splitlines() also splits.
    lines = iter(lambda: file.readline(MAX_ROW_BYTES), b"")
    first = next(lines, b"").removeprefix(b"\xef\xbb\xbf")
    for number, line in enumerate(chain([first], lines), 1):
        if len(line) >= MAX_ROW_BYTES and not line.endswith(b"\n"):
            for rest in lines:
                if rest.endswith(b"\n"):
                    break
            yield f"line {number}", too_long()
        elif line.strip():
            yield f"line {number}", json_row(line)


def json_row(line: bytes) -> dict[str, Any] | BadText:
    """Parse one line."""
    try:
        row = json.loads(line.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError) as error:
        return BadText("not_json", f"is not valid JSON: {error}")
    return row if isinstance(row, dict) else BadText("not_json", NO_OBJECT)


def json_list(file: TextIO) -> Iterator[Any]:
    """Yield the values of a list, one at a time.

    Args:
        file: A file that starts with ``[``, after blanks.

    Raises:
        NotAList: The JSON is invalid, or a value is longer than ``MAX_ROW_BYTES``.
    """
    decoder, text, at, number = json.JSONDecoder(), "", 0, 0
    ended = False

    def more() -> None:
        """Drop the parsed text and read at least as much again, so that a long value is decoded only a few times."""
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
    at += 1  # the opening bracket
    if upcoming() == "]":
        at += 1
    else:
        while True:
            upcoming()
            while True:
                try:
                    value, end = decoder.raw_decode(text, at)
                    # A number at the end of the text may continue in the next chunk.
                    if end < len(text) or ended:
                        break
                    reason = ""
                except json.JSONDecodeError as error:
                    reason = error.msg
                except (ValueError, RecursionError) as error:
                    raise NotAList(f"row {number + 1} is not valid JSON: {error}") from None
                if ended or len(text) - at > MAX_ROW_BYTES:
                    reason = (
                        f"is not valid JSON: {reason}"
                        if ended
                        else f"is longer than {MAX_ROW_BYTES} bytes, or is not valid JSON"
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
                raise NotAList(f"a comma or the end of the list is missing after row {number}")
    if upcoming():
        raise NotAList(f"the list ends after row {number}, but more text follows")


def _end_of_blanks(text: str, at: int) -> int:
    found = _BLANKS.match(text, at)
    return found.end() if found else at
