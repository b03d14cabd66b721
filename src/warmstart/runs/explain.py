"""Turn exceptions into messages for the user, and into exit statuses.

Status 2 is a user's mistake or a problem of the machine, status 1 a defect of warmstart or a rank that died.
"""

import errno
import os
import re
import signal
from difflib import get_close_matches
from pathlib import Path

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from warmstart.config.schema import TASKS, about, unknown_option
from warmstart.config.shipped import config_dir
from warmstart.errors import Interrupted, RankDied, UserError

_MOST_CHOICES = 12
_NO_MEMORY = "DefaultCPUAllocator: can't allocate memory"
_DISK_FULL = "Free disk space, or write elsewhere: set output_root (runs) or $WARMSTART_CACHE (caches)."
_NO_PERMISSION = "Change its permissions, or choose another path."
_BAD_DEVICE = "The disk or its connection is failing. Once it works again, the same command resumes."
_TOO_MANY_FILES = "Raise the limit on open files (ulimit -n), or lower data.batch.workers."
_REMEDY_BY_ERRNO = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _DISK_FULL),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _NO_PERMISSION),
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ENXIO, errno.ENODEV), _BAD_DEVICE),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), _TOO_MANY_FILES),
    **dict.fromkeys((errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST), "Choose another path."),
}


def status_of(error: BaseException) -> int:
    """Return the exit status of a process that ends with ``error``.

    Returns:
        128 plus the signal's number after a signal, 1 for a defect of ours or a rank that died, else 2.
    """
    if isinstance(error, Interrupted):
        return error.status
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    return 1 if isinstance(error, RankDied) or explain(error) is None else 2


def explain(error: BaseException) -> str | None:
    """Return the message to show the user for ``error`` and its causes.

    Returns:
        A few sentences, or None if the error is a defect of ours and needs a traceback.
    """
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and cause not in causes:
        causes.append(cause)
    for cause in causes:
        if isinstance(cause, UserError | RankDied):
            return str(cause)
        if isinstance(cause, OSError) and cause.errno in _REMEDY_BY_ERRNO:
            name = cause.filename2 or cause.filename  # filename2 is the target of a rename
            path = "" if name is None else f" ({name})"
            return f"{os.strerror(cause.errno)}{path}. {_REMEDY_BY_ERRNO[cause.errno]}"
        if "database or disk is full" in str(cause) or "disk I/O error" in str(cause):  # SQLite, called by Optuna
            return f"The search's study cannot be written ({_first_line(cause)}). {_DISK_FULL}"
        if "file is not a database" in str(cause) or "database disk image is malformed" in str(cause):
            return (
                f"The search's study is corrupt ({_first_line(cause)}). Move search.db elsewhere and run the same "
                "command: it proposes the same points again, and does not repeat finished jobs."
            )
        if isinstance(cause, RuntimeError) and str(cause) == "Could not determine home directory.":  # from pathlib
            return "A path begins with ~, but the home directory is unknown. Set $HOME, or write the path without ~."
        if isinstance(cause, KeyError | OSError) and "getpwuid()" in str(cause):  # from getpass, called by torch
            return "The current user is not listed in /etc/passwd, so its name is unknown. Set $USER."
    for cause in causes:
        no_memory = isinstance(cause, MemoryError) or getattr(cause, "errno", None) == errno.ENOMEM
        if no_memory or type(cause).__name__ == "OutOfMemoryError" or _NO_MEMORY in str(cause):
            return (
                f"Out of memory: {_first_line(cause) if str(cause) else 'Python could allocate no more'}. Lower "
                "data.batch.max_tokens (or data.batch.size) and raise trainer.accumulate by the same factor: the "
                "optimizer steps stay the same. In an evaluation, lower data.evaluation_max_tokens or "
                "generation.num_beams. The same command resumes from the last checkpoint; task=check predicts how much "
                "memory a fit needs."
            )
    for cause in causes:
        if isinstance(cause, OmegaConfBaseException):
            key = getattr(cause, "full_key", None) or getattr(cause, "key", None)
            if key and isinstance(cause, ConfigAttributeError | ConfigKeyError):
                return unknown_option(str(key))
            named = f"{key}: " if key else ""
            if key and "is not a ListConfig" in str(cause):
                return f"{key} takes a list. Use brackets, with one value too: '{key}=[VALUE]'.{about(str(key))}"
            return f"{named}{_first_line(cause)}.{about(str(key or ''))}"
    if isinstance(error, OverrideParseException):
        key, equals, _ = error.override.partition("=")
        if not equals:
            return _not_an_override(key)
        return (
            f"{error.override} cannot be parsed ({_compact(error)}). A value with characters other than letters, "
            f"digits and /._- needs quotes inside the shell's quotes: '{key}=\"VALUE\"', or in a list "
            f"'{key}=[\"VALUE\"]'."
        )
    if isinstance(error, MissingConfigException) and (file := error.missing_cfg_file) and "/" in file:
        return _unknown_choice(file, list(error.options or []))
    if isinstance(error, HydraException):
        return f"{_compact(error)} See --help for the choices."
    if isinstance(error, ValueError) and _module_of(error) == "hydra._internal.utils":  # -m with --cfg, for example
        return f"{error}. See --hydra-help."
    return None


def _not_an_override(word: str) -> str:
    """Return the message about a word of the command line that has no equals sign."""
    near = get_close_matches(word, TASKS, 1)
    hint = f"Did you mean task={near[0]}?" if near else "Put no blanks around =, and quotes around a value with blanks."
    return f"{word!r} is not an override. Overrides are written OPTION=VALUE. {hint} See --help."


def _module_of(error: BaseException) -> str | None:
    """Return the name of the module that raised ``error``."""
    raised = error.__traceback__
    while raised is not None and raised.tb_next is not None:
        raised = raised.tb_next
    return None if raised is None else raised.tb_frame.f_globals.get("__name__")


def _unknown_choice(file: str, choices: list[str]) -> str:
    """Return the message about a choice that does not exist.

    Args:
        file: Its config file as Hydra names it: ``decoder/gpt3``.
        choices: The choices of its group.
    """
    group, _, name = file.partition("/")
    if group == "hydra":
        group, _, name = file.rpartition("/")
    in_folders = _choices_in_folders(group)
    near = get_close_matches(name, [*choices, *in_folders], 1)
    near = near or [one for one in (*choices, *in_folders) if name in one][:1]
    if any(one.startswith(f"{name}/") for one in in_folders):
        near = []
    lines = [f"There is no {group}={name}." + (f" Did you mean {group}={near[0]}?" if near else "")]
    if group in ("encoder", "decoder"):
        path = name if "/" in name else "HUB_ID_OR_FOLDER"
        lines.append(f"Any checkpoint on the hub or in a folder: {group}=hf {group}.path={path}")
        if "/" in name:
            return "\n".join(lines)
    same_folder = [one for one in in_folders if one.partition("/")[0] == name.partition("/")[0]]
    choices = same_folder or choices
    if choices:
        folder = f"{group}={same_folder[0].partition('/')[0]}/" if same_folder else group
        lines += [f"The choices of {folder}:", *(f"  {one}" for one in choices[:_MOST_CHOICES])]
    if len(choices) > _MOST_CHOICES:
        lines.append(f"  and {len(choices) - _MOST_CHOICES} more: --help")
    return "\n".join(lines)


def _choices_in_folders(group: str) -> list[str]:
    """Return the shipped choices of a group that lie in a folder: ``rothe/bert2bert``. Hydra names the others."""
    files = Path(config_dir(), group)
    return sorted(file.relative_to(files).with_suffix("").as_posix() for file in files.glob("*/**/*.yaml"))


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0].rstrip(".")


def _compact(error: BaseException) -> str:
    return re.sub(r"\s+", " ", str(error)).strip()
