"""What is printed of names, texts and files shows as text: it can neither steer a terminal nor reorder a line.

Messages for a person go through :func:`say`, log records through :func:`escape_log_records`, tracebacks through
:func:`escape_tracebacks`. What the user asked for as data (``predictions.jsonl``, summaries in files or pipes) is left
as it is.
"""

import logging
import re
import sys
import traceback
from types import TracebackType
from typing import Any, TextIO

# Control characters but for tab and newline, the marks and overrides of direction, ends of line that are not a newline,
# and lone surrogates, which a strict stream cannot encode.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_COLOUR = re.compile("\x1b\\[[0-9;]*m")


def visible(text: object) -> str:
    """The text with every character that acts on a terminal as an escape: ``\\x1b``, ``\\u202e``."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), str(text))


def say(*lines: object, file: TextIO | None = None) -> None:
    """Print lines for a person, to standard output or ``file``."""
    print(*map(visible, lines), sep="\n", file=sys.stdout if file is None else file, flush=True)


def escape_log_records() -> None:
    """From now on, every log record of this process, of whatever logger and handler, is :func:`visible`."""
    logging.setLogRecordFactory(_VisibleRecord)


def escape_tracebacks() -> None:
    """From now on, the traceback that ends this process is :func:`visible`: its last line may hold data."""
    sys.excepthook = _print_visible


class _VisibleRecord(logging.LogRecord):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if isinstance(self.exc_info, tuple) and self.exc_info[0] is not None:
            # What a formatter takes instead of formatting the exception itself.
            self.exc_text = visible("".join(traceback.format_exception(*self.exc_info))).rstrip("\n")

    def getMessage(self) -> str:
        message = super().getMessage()
        if self.name.partition(".")[0] == "transformers":  # it colours its tables of keys
            message = _COLOUR.sub("", message)
        return visible(message)


def _print_visible(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    say("".join(traceback.format_exception(kind, error, trace)).rstrip("\n"), file=sys.stderr)
