"""Locks between processes: one behavior on file systems with and without flock.

    with locked(folder / "x.lock"):
        ...

The lock file names its holder: host, process id and the time when that process started. Where the file system has
flock, the kernel decides who holds the lock, and the lock ends with its process. Elsewhere the file itself is the lock.
It is created exclusively and removed on release. A file that a process of this host left behind is recognized and
cleared. Of a process of another host nobody can say whether it still runs: that is an error which names the file.
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
_TO_WRITE = 2.0  # seconds between creating a lock file and naming its holder in it
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@dataclass(frozen=True)
class Holder:
    """A process, told apart from a later one with the same id, and from one of another container."""

    host: str
    pid: int
    started: str | None
    namespace: str | None
    by_flock: bool = False

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    def is_alive(self) -> bool | None:
        """Whether it still runs; None where this host cannot know."""
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
        except PermissionError:  # of another user, where /proc hides those
            return True
        return here.started is None  # with /proc, it is a zombie


def this_process(*, by_flock: bool = False) -> Holder:
    """The holder that this process is."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = None
    return Holder(socket.gethostname(), os.getpid(), _started(os.getpid()), namespace, by_flock)


class Lock:
    """A lock at ``path``, whose folder has to exist. Not reentrant: a second object on the same path has to wait."""

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
        """Whether the kernel holds the lock; False on a file system without flock, and before it is acquired."""
        return self._descriptor is not None

    def acquire(self, *, wait: bool) -> bool:
        """Take the lock; False where another process has it and ``wait`` is false.

        Raises:
            UserError: the file system has no flock, and nobody here can say whether the holder still runs.
            OSError: the lock file cannot be written.
        """
        while not self._take():
            if not wait:
                return False
            time.sleep(_POLL)
        return True

    def release(self) -> None:
        """Let others have it."""
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
        """Who has the lock; None where nobody has, or the file does not say."""
        return _named(_content(self.path))

    def _take(self) -> bool:
        """One try. With flock a file that was removed meanwhile is another file: its lock counts for nothing."""
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
                self._close()  # by a process that got no flock here
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
        with contextlib.suppress(OSError):  # flock holds it all the same; a full disk is for the caller to name
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, self._mark, 0)

    def _is_still_there(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        except FileNotFoundError:
            return False

    def _is_free(self) -> bool:
        """Whether another try is due, where the file itself is the lock: it is gone, or what a dead process left.

        Raises:
            UserError: nobody here can say whether the holder still runs.
        """
        content = _written(self.path)
        if content is None:
            return True
        holder = _named(content)
        alive = None if holder is None else holder.is_alive()
        if alive is None:
            raise UserError(
                f"{self.path} is the lock of {holder or 'a process that it does not name'}, and this file system has "
                "no flock to ask whether that process still runs. Wait for its end; if it has ended, delete the file."
            )
        if alive:
            return False
        # Only who holds a lock named by the dead process may clear what that left, and looks again before: the
        # file may be a living process's by now.
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
    """In this block no other process has the lock at ``path``; waits for whoever has it.

    Raises:
        UserError: as :meth:`Lock.acquire`.
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
    """When a process started, in clock ticks of one boot; None where it is gone, a zombie, or there is no /proc."""
    try:
        # The name in parentheses may hold blanks and parentheses of its own.
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
    """The content of a lock file, once its holder has written it; None where the file is gone."""
    deadline = time.monotonic() + _TO_WRITE
    while (content := _content(path)) is not None and _named(content) is None and time.monotonic() < deadline:
        time.sleep(_POLL)
    return content
