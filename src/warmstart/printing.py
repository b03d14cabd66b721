"""Escape control characters in all output, so that names and texts cannot control a terminal or reorder a line.

Messages go through ``say``, log records through ``escape_log_records``, tracebacks through
``escape_tracebacks``. Requested data (``predictions.jsonl``, summaries in files or pipes) is never escaped.
"""

import logging
import re
import sys
import traceback
from types import TracebackType
from typing import Any, TextIO

# Control characters except tab and newline, marks and overrides of text direction, line separators other than newline,
# and unpaired surrogates, which a strict stream cannot encode.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_COLOUR = re.compile("\x1b\\[[0-9;]*m")


def visible(text: object) -> str:
    r"""Escape all characters that act on a terminal, such as ``\x1b`` and ``\u202e``."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), str(text))


def say(*lines: object, file: TextIO | None = None) -> None:
    """Print lines, escaped, to standard output or ``file``."""
    print(*map(visible, lines), sep="\n", file=sys.stdout if file is None else file, flush=True)


def program() -> str:
    """Return what starts this program, for commands that are shown: ``python run.py`` or ``warmstart``."""
    return "python run.py" if sys.argv[0].endswith(".py") else "warmstart"


def escape_log_records() -> None:
    """Escape all later log records of this process, for every logger and handler."""
    logging.setLogRecordFactory(_VisibleRecord)


def escape_tracebacks() -> None:
    """Escape the traceback that ends this process, as its last line may contain data."""
    sys.excepthook = _print_visible


class _VisibleRecord(logging.LogRecord):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if isinstance(self.exc_info, tuple) and self.exc_info[0] is not None:
            # A formatter uses this instead of formatting the exception itself.
            self.exc_text = visible("".join(traceback.format_exception(*self.exc_info))).rstrip("\n")

    def getMessage(self) -> str:  # noqa: N802 - logging's name
        """Return the message, escaped."""
        message = super().getMessage()
        if self.name.partition(".")[0] == "transformers":  # its tables of keys are colored
            message = _COLOUR.sub("", message)
        return visible(message)


def _print_visible(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    say("".join(traceback.format_exception(kind, error, trace)).rstrip("\n"), file=sys.stderr)
