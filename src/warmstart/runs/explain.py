"""Which exceptions are a user's mistake, the one message each of them ends in, and the exit status of all."""

import errno
import os
import re
import signal

from hydra.errors import HydraException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from warmstart.config.schema import about
from warmstart.errors import Left, RankDied, UserError

_NO_MEMORY = "DefaultCPUAllocator: can't allocate memory"
_ROOM = "Free some, or have it written elsewhere: output_root is the folder of runs, $WARMSTART_CACHE that of caches."
_RIGHTS = "Change its permissions, or name another place."
_DEVICE = "The disk or its connection fails; the same command goes on with what it holds."
_OF_THE_MACHINE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _ROOM),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _RIGHTS),
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ENXIO, errno.ENODEV), _DEVICE),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "Raise the limit (ulimit -n), or lower data.batch.workers."),
    **dict.fromkeys((errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST), "Name another place."),
}


def status_of(error: BaseException) -> int:
    """The exit status of a process that this ends: 2 for a user's mistake, 1 for a defect or a killed rank."""
    if isinstance(error, Left):
        return error.status
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    return 1 if isinstance(error, RankDied) or explain(error) is None else 2


def explain(error: BaseException) -> str | None:
    """The message for the person at the keyboard, or None where the fault is ours."""
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and cause not in causes:
        causes.append(cause)
    for cause in causes:
        if isinstance(cause, UserError | RankDied):
            return str(cause)
        if isinstance(cause, OSError) and cause.errno in _OF_THE_MACHINE:
            name = cause.filename2 or cause.filename  # of a rename, where it leads
            place = "" if name is None else f" ({name})"
            return f"{os.strerror(cause.errno)}{place}. {_OF_THE_MACHINE[cause.errno]}"
        if "database or disk is full" in str(cause) or "disk I/O error" in str(cause):  # SQLite's, in Optuna's
            return f"The study of the search cannot be written ({_first_line(cause)}). {_ROOM}"
        if "file is not a database" in str(cause) or "database disk image is malformed" in str(cause):
            return (
                f"The study of the search is damaged ({_first_line(cause)}). Move search.db elsewhere: the same "
                "command proposes the points again and runs no finished job twice."
            )
        if isinstance(cause, RuntimeError) and str(cause) == "Could not determine home directory.":  # pathlib's
            return "A path begins with ~, and no home directory is known. Set $HOME, or write the path without ~."
        if isinstance(cause, KeyError | OSError) and "getpwuid()" in str(cause):  # getpass's, in torch
            return "This user has no name: /etc/passwd does not list it. Set $USER."
    for cause in causes:
        no_memory = isinstance(cause, MemoryError) or getattr(cause, "errno", None) == errno.ENOMEM
        if no_memory or type(cause).__name__ == "OutOfMemoryError" or _NO_MEMORY in str(cause):
            return (
                f"Out of memory: {_first_line(cause) if str(cause) else 'Python could allocate no more'}. Lower "
                "data.batch.max_tokens (or data.batch.size) and raise trainer.accumulate by as much: the steps stay "
                "what they are. In an evaluation, lower data.evaluation_max_tokens or generation.num_beams. The same "
                "command goes on from the last checkpoint; task=check says what a fit needs."
            )
    for cause in causes:
        if isinstance(cause, OmegaConfBaseException):
            key = getattr(cause, "full_key", None) or getattr(cause, "key", None)
            named = f"{key}: " if key else ""
            return f"{named}{_first_line(cause)}.{about(str(key or ''))}"
    if isinstance(error, OverrideParseException):
        key = error.override.partition("=")[0]
        return (
            f"{error.override} cannot be read ({_compact(error)}). A value that holds other characters than letters, "
            f"digits and /._- needs quotes within those of the shell: '{key}=\"VALUE\"', in a list '{key}=[\"VALUE\"]'."
        )
    if isinstance(error, HydraException):
        return f"{_compact(error)} See --help for the choices."
    return None


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0].rstrip(".")


def _compact(error: BaseException) -> str:
    return re.sub(r"\s+", " ", str(error)).strip()
