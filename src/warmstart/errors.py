"""Errors that are not bugs: a user's mistake, the end of another process, a graceful shutdown."""

import errno
import signal
from collections.abc import Iterable
from pathlib import Path

LISTED = 10
_NAME_LENGTH = 60
_OF_THE_MACHINE = frozenset(
    {
        *(errno.ENOMEM, errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO),
        *(errno.ESTALE, errno.ENXIO, errno.ENODEV, errno.EMFILE, errno.ENFILE),
    }
)
_NO_MEMORY = ("can't allocate memory", "Cannot allocate memory", "out of memory")


def says_nothing_of_the_file(error: BaseException) -> bool:
    """Return whether reading a file failed for lack of memory, a device, disk space, permissions or a package.

    A loader re-raises such errors, because its own message would blame a file that may be intact. The same holds for a
    ``UserError``, which has its own message.
    """
    if isinstance(error, UserError | MemoryError | ImportError):
        return True
    if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
        return True
    cuda = type(error).__name__ in ("OutOfMemoryError", "AcceleratorError")  # torch's; importing it takes seconds
    return cuda or any(words in str(error) for words in _NO_MEMORY)


class UserError(Exception):
    """A mistake that the user can fix; ends the run with exit status 2 and no traceback.

    The message states what was requested, what was found, and what to do.
    """


class RankDied(Exception):
    """Another process of this job was ended by a signal; ends this one with exit status 1 and no traceback."""


class Interrupted(BaseException):
    """A signal stopped the task. It derives from ``BaseException`` so that it also ends the sweep around a fit.

    Args:
        received: the signal that came first.
        saved: the checkpoint that was written before the end, or None if there was no time for one.
    """

    def __init__(self, received: signal.Signals, saved: Path | None) -> None:
        """Compose the message and the exit status, 128 plus the signal's number."""
        where = f"saved {saved}" if saved else "not saved since the last checkpoint"
        super().__init__(f"{received.name}: stopped, {where}. The same command resumes.")
        self.status = 128 + received


def install_extra(name: str) -> str:
    """Return the sentence of a message that says how to install an extra; its full stop is the caller's."""
    return f"Install the extra in the clone of warmstart: pip install '.[{name}]'"  # no index has the package yet


def listed(names: Iterable[object]) -> str:
    """Format names for a message: at most ten, quoted so that blanks and invisible characters are visible."""
    whole = list(names)
    shown = [name if len(name) <= _NAME_LENGTH else f"{name[:_NAME_LENGTH]}…" for name in map(str, whole[:LISTED])]
    more = f" and {len(whole) - LISTED} more" if len(whole) > LISTED else ""
    return ", ".join(map(repr, shown)) + more
