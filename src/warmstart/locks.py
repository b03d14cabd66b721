"""Locks between processes, with the same behavior on file systems with and without flock.

    with locked(folder / "x.lock"):
        ...

The lock file names its holder: host, process id and start time of the process. If the file system has flock, the kernel
decides who holds the lock, and the lock ends with its process. Otherwise the file itself is the lock: it is created
exclusively and removed on release. A file left by a dead process of this host is recognized and removed. Whether a
process of another host is alive cannot be known: a file left by one raises an error that names the file.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from warmstart.errors import UserError

_log = logging.getLogger(__name__)
_POLL = 0.1  # seconds
_WRITE_SECONDS = 2.0  # allowed between creating a lock file and writing its holder
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@dataclass(frozen=True)
class Holder:
    """A process, distinguished from a later one with the same id and from one in another container."""

    host: str
    pid: int
    started: str | None
    """Start time and boot id; None if unknown."""
    namespace: str | None
    """PID namespace; None if unknown."""
    by_flock: bool = False
    """Whether the process holds its lock by flock."""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    def is_alive(self) -> bool | None:
        """Return whether the process is running; None if this host cannot know."""
        here = this_process()
        if (self.host, self.namespace) != (here.host, here.namespace):
            return None
        started = _started(self.pid)
        if started is not None:
            return self.started in (None, started)
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # of another user, hidden in /proc
            return True
        return here.started is None  # if there is a /proc, it is a zombie


def this_process(*, by_flock: bool = False) -> Holder:
    """Return this process as a holder.

    Args:
        by_flock: Whether it holds the lock by flock.
    """
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = None
    return Holder(socket.gethostname(), os.getpid(), _started(os.getpid()), namespace, by_flock)


class Lock:
    """A lock file. It is not reentrant: a second object on the same path has to wait.

    Args:
        path: The lock file, in an existing folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None
        self._mark: bytes | None = None

    @property
    def is_held(self) -> bool:
        """Whether this object holds the lock."""
        return self._mark is not None

    @property
    def has_flock(self) -> bool:
        """Whether this object holds the lock by flock."""
        return self._descriptor is not None

    def acquire(self, *, wait: bool) -> bool:
        """Take the lock.

        Args:
            wait: Whether to wait for another holder.

        Returns:
            Whether the lock was taken; always true with ``wait``.

        Raises:
            UserError: The file system has no flock, and this host cannot know whether the holder is alive.
            OSError: The lock file cannot be written.
        """
        while not self._take():
            if not wait:
                return False
            time.sleep(_POLL)
        return True

    def release(self) -> None:
        """Release the lock; does nothing if it is not held."""
        mark, self._mark = self._mark, None
        if mark is None:
            return
        with contextlib.suppress(OSError):
            if self._descriptor is None:
                ours = self.path.read_bytes() == mark
            else:
                ours = os.path.samestat(os.fstat(self._descriptor), self.path.stat())
            if ours:
                self.path.unlink()
        self._close()

    def holder(self) -> Holder | None:
        """Return the holder of the lock; None if it is free or its file names no holder."""
        return _named(_content(self.path))

    def _take(self) -> bool:
        """Try once to take the lock; a flock on a file that was removed in the meantime does not count."""
        while True:
            try:
                descriptor, created = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), True
            except FileExistsError:
                try:
                    descriptor, created = os.open(self.path, os.O_RDWR), False
                except FileNotFoundError:
                    continue
            self._descriptor = descriptor
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._close()
                return False
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    self._close()
                    raise
                if created:
                    self._mark_file(descriptor)
                    return True
                self._close()
                if self._is_free():
                    continue
                return False
            if self._is_still_there(descriptor):
                left = None if created else self.holder()
                if left is None or left.by_flock or left.is_alive() is False:
                    self._name_holder(descriptor)
                    return True
                self._close()  # held by a process without flock
                if not self._is_free():
                    return False
            self._close()

    def _mark_file(self, descriptor: int) -> None:
        mark = _bytes(this_process())
        try:
            os.write(descriptor, mark)
            os.fsync(descriptor)
        except OSError as error:
            self.path.unlink()
            error.filename = str(self.path)
            raise
        finally:
            self._close()
        self._mark = mark

    def _name_holder(self, descriptor: int) -> None:
        self._mark = _bytes(this_process(by_flock=True))
        with contextlib.suppress(OSError):  # flock holds the lock anyway; the caller will report a full disk
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, self._mark, 0)

    def _is_still_there(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        except FileNotFoundError:
            return False

    def _is_free(self) -> bool:
        """Return whether to try again, without flock: the file is gone, or was left by a dead process and removed.

        Raises:
            UserError: This host cannot know whether the holder is alive.
        """
        content = _written(self.path)
        if content is None:
            return True
        holder = _named(content)
        alive = None if holder is None else holder.is_alive()
        if alive is None:
            raise UserError(
                f"{self.path} is the lock of {holder or 'a process that it does not name'}, and without flock on this "
                "file system it is unknown whether that process is running. Wait until it ends, then delete the file."
            )
        if alive:
            return False
        # Only the holder of a second lock, named after the dead process, may remove the file. It checks the content
        # again, because the file may belong to a living process by now.
        digest = hashlib.sha256(content).hexdigest()[:16]
        clearing = Lock(self.path.with_name(f".{digest}.clearing"))
        if clearing.acquire(wait=True):
            try:
                if _content(self.path) == content:
                    self.path.unlink()
            finally:
                clearing.release()
        return True

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock at ``path`` during the block; wait for it first, and create missing folders.

    Raises:
        UserError: See ``Lock.acquire``.
        OSError: See ``Lock.acquire``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = Lock(path)
    if not lock.acquire(wait=False):
        _log.info("Waiting for %s, which holds %s", lock.holder() or "another process", path)
        lock.acquire(wait=True)
    try:
        yield
    finally:
        lock.release()


def _started(pid: int) -> str | None:
    """Return start time (clock ticks) and boot id of a process; None if it is gone or a zombie, or without /proc."""
    try:
        # The process name in parentheses may itself contain blanks and parentheses.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else f"{int(fields[19])} of boot {boot}"


def _bytes(holder: Holder) -> bytes:
    return json.dumps(asdict(holder)).encode()


def _named(content: bytes | None) -> Holder | None:
    try:
        return Holder(**json.loads(content or b""))
    except (ValueError, TypeError):
        return None


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _written(path: Path) -> bytes | None:
    """Return the content of a lock file once its holder has written it; None if the file is gone."""
    deadline = time.monotonic() + _WRITE_SECONDS
    while (content := _content(path)) is not None and _named(content) is None and time.monotonic() < deadline:
        time.sleep(_POLL)
    return content
