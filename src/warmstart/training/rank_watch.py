"""Watches the further ranks that this process has started: where one of them dies, the job ends and says so.

Lightning kills all of them and this process too, without a word: a sweep would end with its job. With gloo the next
collective call of this process fails, and here that failure becomes a message. Where it waits on (NCCL does), the
process says so and ends after some seconds; the same command goes on.
"""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.fabric.strategies.launchers import subprocess_script as of_fabric
from lightning.pytorch.strategies.launchers import subprocess_script as of_trainer

from warmstart.errors import Left, RankDied
from warmstart.printing import say
from warmstart.training.leaving import SIGNALS

_log = logging.getLogger(__name__)
_POLL = 0.5  # seconds
GRACE = 30.0  # seconds for this process to notice by itself
_TO_END = 60.0  # seconds for the further ranks to end after this one; a failure leaves them a tenth
_LEFT = {128 + number for number in SIGNALS}  # the statuses of ranks that were asked to leave


class RankWatch(threading.Thread):
    """The further ranks of one job; none where another program starts them, or there is but one."""

    def __init__(self) -> None:
        super().__init__(daemon=True, name="rank-watch")
        self.ranks: list[subprocess.Popen] = []
        self._over = threading.Event()

    def take(self, ranks: list[subprocess.Popen]) -> None:
        """What a launcher calls instead of starting its own watch."""
        self.ranks = list(ranks)
        if not self.is_alive():
            self.start()

    def run(self) -> None:
        while not self._over.wait(_POLL):
            if (death := self.death()) is not None:
                for rank in self.ranks:
                    rank.kill()
                if not self._over.wait(GRACE):
                    for rank in self.ranks:
                        rank.poll()
                    _log.error("%s", death)
                    say(f"warmstart: {death}", file=sys.stderr)
                    os._exit(1)
                return

    def death(self) -> str | None:
        """What is said of the first rank that ended badly; None where none has."""
        for number, rank in enumerate(self.ranks, 1):
            status = rank.poll()
            if status is None or status == 0 or status in _LEFT:
                continue
            how = f"failed with status {status}; its own message stands above"
            if status < 0:
                how = f"was ended by {signal.Signals(-status).name}"
                how += " (as the system does where memory runs out)" if status == -signal.SIGKILL else ""
            return f"Rank {number} of this job {how}. The same command goes on from the last checkpoint."
        return None

    def killed(self, seconds: float) -> str | None:
        """As :meth:`death`, of a rank that a signal ended, or will within so many seconds."""
        for rank in self.ranks:
            with contextlib.suppress(subprocess.TimeoutExpired):
                if rank.wait(seconds) < 0:
                    return self.death()
        return None

    def end(self, seconds: float) -> None:
        """Stop watching; the ranks have so many seconds to end."""
        self._over.set()
        for rank in self.ranks:
            try:
                rank.wait(seconds)
            except subprocess.TimeoutExpired:
                rank.kill()
                rank.wait()


@contextmanager
def watched_ranks() -> Iterator[RankWatch]:
    """In this block, ranks that Lightning starts are watched by us; behind it they have ended.

    Raises:
        RankDied: one was ended by a signal, and so this process failed.
    """
    watch, before = RankWatch(), of_trainer._launch_process_observer
    modules: tuple[Any, ...] = (of_trainer, of_fabric)
    for module in modules:
        module._launch_process_observer = watch.take
    seconds = _TO_END
    try:
        yield watch
    except Exception as error:
        seconds = _TO_END / 10
        watch._over.set()
        if isinstance(error, RuntimeError) and (death := watch.killed(seconds=1.0)) is not None:
            raise RankDied(death) from error
        raise
    except Left:
        raise
    except BaseException:
        seconds = 0.0
        raise
    finally:
        for module in modules:
            module._launch_process_observer = before
        watch.end(seconds)
