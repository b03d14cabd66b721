"""Which exceptions are a user's mistake, and the one message each of them ends in."""

import errno
import re

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from warmstart.errors import RankDied, UserError


def explain(error: BaseException) -> str | None:
    """The message for the person at the keyboard, or None where the fault is ours."""
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and cause not in causes:
        causes.append(cause)
    for cause in causes:
        if isinstance(cause, UserError | RankDied):
            return str(cause)
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            return (
                f"No space is left on the device ({cause.filename or 'while writing'}). Free some, or set output_root."
            )
    for cause in causes:
        if isinstance(cause, OmegaConfBaseException):
            key = getattr(cause, "full_key", None) or getattr(cause, "key", None)
            named = f"{key}: " if key else ""
            return f"{named}{_first_line(cause)}. Every key and its type: src/warmstart/app/schema.py, or --cfg job."
    if isinstance(error, HydraException):
        return f"{_compact(error)} See --help for the choices."
    return None


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0].rstrip(".")


def _compact(error: BaseException) -> str:
    return re.sub(r"\s+", " ", str(error)).strip()
