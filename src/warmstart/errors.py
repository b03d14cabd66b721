"""How a run ends that is no defect of ours: by a user's mistake, or because it was asked to."""

import signal
from collections.abc import Iterable
from pathlib import Path

LISTED = 10
_NAME_LENGTH = 60


class UserError(Exception):
    """A mistake that the person at the keyboard can mend; ends the run with exit status 2 and no traceback.

    The message says what was asked, what was found, and what to do.
    """


class RankDied(Exception):
    """Another process of this job was ended by a signal; exit status 1 and no traceback, for nothing here is wrong."""


class Left(BaseException):
    """A fit was asked to end and left its state behind. No ``Exception``: it ends the sweep around the fit, too."""

    def __init__(self, asked_by: signal.Signals, saved: Path | None) -> None:
        where = f"saved {saved}" if saved else "not saved, the last checkpoint stands"
        super().__init__(f"{asked_by.name}: left, {where}. The same command goes on.")
        self.status = 128 + asked_by


def listed(names: Iterable[object]) -> str:
    """Names for a message: at most ten, each in quotes so that blanks and invisible characters show."""
    whole = list(names)
    shown = [name if len(name) <= _NAME_LENGTH else f"{name[:_NAME_LENGTH]}…" for name in map(str, whole[:LISTED])]
    more = f" and {len(whole) - LISTED} more" if len(whole) > LISTED else ""
    return ", ".join(map(repr, shown)) + more
