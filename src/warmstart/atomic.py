"""Files and folders that are whole or not there, however a process ends: written beside their place, synced, renamed.

    with replacing(run_dir / "result.json") as file:
        file.write(text)

An error of the system while they are written names the file it was for: Python's own names none where a write fails,
and safetensors' and tokenizers' are of types of their own.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

_FILES = "files.json"
_OF_RUST = re.compile(r"\(os error (\d+)\)")


@contextlib.contextmanager
def replacing(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """A file to write (mode ``w``, in UTF-8, or ``wb``) that takes the place of ``path`` when the block ends well.

    Raises:
        OSError: it cannot be written; what was at ``path`` still is.
    """
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "errors": "backslashreplace", "newline": ""}
    if path.exists() and not path.is_file():  # /dev/stdout and the like are written to, never replaced
        with naming(path), path.open(mode, **text) as file:
            yield file
        return
    path = Path(os.path.realpath(path))  # the file that a link leads to, not the link
    temporary = path.with_name(_own_name(path, "tmp"))
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_left(path, "tmp")
        try:
            with temporary.open(mode, **text) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """``text`` in UTF-8 at ``path``, whole or as it was before."""
    with replacing(path) as file:
        file.write(text)


@contextlib.contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to fill, which takes the place of ``folder`` when the block ends well.

    Two folders cannot change places at once: a process that is killed between two renames leaves the earlier one
    beside its place, where the next call finds it. Two processes at once need a lock of their own. The modes of files
    and folders follow the umask, whichever library wrote them.

    Raises:
        OSError: it cannot be written; what was at ``folder`` still is.
    """
    partial, before = (folder.with_name(f".{folder.name}.{what}") for what in ("partial", "before"))
    with naming(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        if before.exists() and not folder.exists():
            before.rename(folder)
        for left in (partial, before):
            shutil.rmtree(left, ignore_errors=True)
        partial.mkdir()
        try:
            yield partial
            _follow_umask(partial)
            _sync_all(partial)
            if folder.exists():
                folder.rename(before)
            try:
                partial.rename(folder)
            except OSError:
                if before.exists():
                    before.rename(folder)
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        sync_folder(folder.parent)
        shutil.rmtree(before, ignore_errors=True)


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to fill, which becomes ``folder`` when the block ends well, as in :func:`replacing_folder`.

    Of several processes at once, on whatever file system, the first to end has it whole.

    Raises:
        FileExistsError: ``folder`` is there and not empty.
        OSError: it cannot be written.
    """
    partial = folder.with_name(_own_name(folder, "partial"))
    with naming(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _clear_left(folder, "partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            yield partial
            _follow_umask(partial)
            _sync_all(partial)
            try:
                partial.rename(folder)  # takes the place of an empty folder and of no other
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(folder)) from error
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        sync_folder(folder.parent)


def list_files(folder: Path) -> None:
    """Note the files of a folder that is whole, and how long they are: a cleaner of old files may take some."""
    write_text(folder / _FILES, json.dumps(_sizes(folder)))


def has_listed_files(folder: Path) -> bool:
    """Whether all that :func:`list_files` noted is there in its length; False where nothing was noted."""
    try:
        wanted = json.loads((folder / _FILES).read_text(encoding="utf-8"))
        return bool(wanted.items() <= _sizes(folder).items())
    except (OSError, ValueError, RecursionError, TypeError, AttributeError):  # absent, or not the list that was noted
        return False


def _sizes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have an error of the system that names no file name ``path``, whichever library passes it on."""
    try:
        yield
    except Exception as error:
        if number := _OF_RUST.search(str(error)):
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__cause__ or cause.__context__
        if cause is not None and cause.errno is not None and cause.filename is None:
            cause.filename = str(path)
        raise


def save_array(path: Path, array: Any) -> None:
    """What ``numpy.save`` writes, but with the system's reason where that fails, which numpy loses."""
    import numpy as np  # not before the config is composed: results are read for that

    with naming(path), path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(np.ascontiguousarray(array).data)


def sync_folder(folder: Path) -> None:
    """Have a rename in ``folder`` outlive a loss of power, where the file system syncs folders."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _own_name(path: Path, kind: str) -> str:
    """A hidden name next to ``path`` that says which process of which host writes there."""
    return f".{path.name}.{_host()}.{os.getpid()}.{kind}"


def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _clear_left(path: Path, kind: str) -> None:
    """Remove what processes of this host that are gone were writing for ``path``; others may live elsewhere."""
    name = re.compile(rf"\.{re.escape(path.name)}\.{_host()}\.(\d+)\.{kind}")
    with contextlib.suppress(OSError):  # a folder that cannot be listed may still be written to
        for left in path.parent.iterdir():
            if (found := name.fullmatch(left.name)) and not _lives(int(found[1])):
                if left.is_dir() and not left.is_symlink():
                    shutil.rmtree(left, ignore_errors=True)
                else:
                    left.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _follow_umask(folder: Path) -> None:
    """Give files and folders the modes that ``open`` and ``mkdir`` would: safetensors makes its files 0600."""
    mode = stat.S_IMODE(folder.stat().st_mode)  # mkdir has asked the umask, which only a change of it could tell
    for where, folders, files in os.walk(folder):
        for name in folders:
            (Path(where) / name).chmod(mode)
        for name in files:
            file = Path(where) / name
            if not file.is_symlink():
                file.chmod(mode & 0o666)


def _sync_all(folder: Path) -> None:
    for where, _, files in os.walk(folder):
        for name in files:
            file = Path(where) / name
            with naming(file), file.open("rb") as opened:
                os.fsync(opened.fileno())
        sync_folder(Path(where))
