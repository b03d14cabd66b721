"""Write files and folders atomically: to a temporary name in the same folder, synced, then renamed.

    with replacing(run_dir / "result.json") as file:
        file.write(text)

However the process ends, the target is either complete or unchanged. A system error while writing names the file.
Python's own errors lack the name if a write fails, and safetensors and tokenizers raise errors of other types.
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
    """Open a temporary file that replaces ``path`` when the block ends without an error.

    Args:
        path: The target; missing folders are created. A device such as /dev/stdout is written to directly.
        mode: ``w`` (UTF-8) or ``wb``.

    Yields:
        The open file.

    Raises:
        OSError: The file cannot be written; ``path`` is unchanged.
    """
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "errors": "backslashreplace", "newline": ""}
    if path.exists() and not path.is_file():  # a device such as /dev/stdout
        with naming(path), path.open(mode, **text) as file:
            yield file
        return
    path = Path(os.path.realpath(path))  # the target of a link, not the link
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
    """Write ``text`` to ``path`` in UTF-8, like ``replacing``.

    Raises:
        OSError: The file cannot be written; ``path`` is unchanged.
    """
    with replacing(path) as file:
        file.write(text)


@contextlib.contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Create an empty folder that replaces ``folder`` when the block ends without an error.

    Two folders cannot be swapped in one step. A process that is killed between the two renames leaves the old folder
    next to the target, and the next call restores it. Concurrent processes need a lock of their own. The modes of files
    and folders follow the umask, whichever library wrote them.

    Args:
        folder: The target; missing parents are created.

    Yields:
        The folder to fill.

    Raises:
        OSError: The folder cannot be written; ``folder`` is unchanged.
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
    """Create an empty folder that becomes ``folder`` when the block ends without an error.

    Of several concurrent processes the first to finish creates ``folder``, on any file system.

    Args:
        folder: The target, which must be missing or empty; missing parents are created.

    Yields:
        The folder to fill.

    Raises:
        FileExistsError: ``folder`` exists and is not empty.
        OSError: The folder cannot be written.
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
                partial.rename(folder)  # succeeds only if the target is missing or an empty folder
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(folder)) from error
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        sync_folder(folder.parent)


def list_files(folder: Path) -> None:
    """Record the files of a complete folder and their sizes, so that ``has_listed_files`` detects later deletions.

    Raises:
        OSError: The record cannot be written.
    """
    write_text(folder / _FILES, json.dumps(_sizes(folder)))


def has_listed_files(folder: Path) -> bool:
    """Return whether all files that ``list_files`` recorded exist with their sizes; False if there is no record."""
    try:
        wanted = json.loads((folder / _FILES).read_text(encoding="utf-8"))
        return bool(wanted.items() <= _sizes(folder).items())
    except (OSError, ValueError, RecursionError, TypeError, AttributeError):  # no record, or a damaged one
        return False


def _sizes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add ``path`` to a system error that names no file, whichever library raises it.

    Raises:
        OSError: Instead of the error of a Rust library, if its message contains a system error.
    """
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
    """Write an array like ``numpy.save``, but keep the reason of a system error, which numpy drops.

    Args:
        path: The file, ending in ``.npy``.
        array: A numpy array.

    Raises:
        OSError: The file cannot be written.
    """
    import numpy as np  # imported late, because this module is used before the config is composed

    with naming(path), path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(np.ascontiguousarray(array).data)


def sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` survive a loss of power, if the file system can sync folders."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _own_name(path: Path, kind: str) -> str:
    """Return a hidden name next to ``path`` that identifies this process and host."""
    return f".{path.name}.{_host()}.{os.getpid()}.{kind}"


def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _clear_left(path: Path, kind: str) -> None:
    """Remove temporary files for ``path`` from dead processes of this host; other hosts' processes may be alive."""
    name = re.compile(rf"\.{re.escape(path.name)}\.{_host()}\.(\d+)\.{kind}")
    with contextlib.suppress(OSError):  # a folder that cannot be listed may still be writable
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
    """Give files and folders the modes that ``open`` and ``mkdir`` would; safetensors creates files with 0600."""
    mode = stat.S_IMODE(folder.stat().st_mode)  # mkdir applied the umask, which cannot be read without changing it
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
