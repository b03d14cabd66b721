"""Watches the further ranks of a job: where one of them dies or stops answering, the job ends and says so.

Lightning kills all of them and this process too, without a word: a sweep would end with its job. With gloo the next
collective call of this process fails, and here that failure becomes a message. Where it waits on (NCCL does), the
process says so and ends after some seconds; the same command goes on. A rank that this process has not started is
watched only for its answers.
"""

import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from warmstart.compat.lightning import process_observer
from warmstart.config.training import TrainerSettings
from warmstart.errors import LISTED, Left, RankDied
from warmstart.printing import say
from warmstart.training.callbacks.interrupt import SIGNALS
from warmstart.training.distributed.heartbeat import Heartbeat

_log = logging.getLogger(__name__)
_POLL = 0.5  # seconds
GRACE = 30.0  # seconds for this process to notice by itself
_TO_END = 60.0  # seconds for the further ranks to end after this one; a failure leaves them a tenth
_RANKS_OF = ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
_LEFT = {128 + number for number in SIGNALS}  # the statuses of ranks that were asked to leave


class RankWatch(threading.Thread):
    """The further ranks of one job; none where another program starts them, or there is but one."""

    def __init__(self, heartbeat: Heartbeat | None = None) -> None:
        super().__init__(daemon=True, name="rank-watch")
        self.ranks: list[subprocess.Popen] = []
        self.silence: str | None = None
        self._heartbeat = heartbeat
        self.over = threading.Event()

    def take(self, ranks: list[subprocess.Popen]) -> None:
        """What a launcher calls instead of starting its own watch."""
        self.ranks = list(ranks)
        if not self.is_alive():
            self.start()

    def run(self) -> None:
        while not self.over.wait(_POLL):
            if (death := self.death() or self._noted_silence()) is not None:
                for rank in self.ranks:
                    rank.kill()
                if not self.over.wait(GRACE):
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

    def _noted_silence(self) -> str | None:
        if self._heartbeat is not None and (silent := self._heartbeat.silent()):
            ranks = ", ".join(map(str, silent[:LISTED]))
            self.silence = (
                f"Rank {ranks} of this job has not answered for trainer.timeout_minutes="
                f"{self._heartbeat.seconds / 60:g}: its process is stopped, or its machine is. The same command goes "
                "on from the last checkpoint."
            )
        return self.silence

    def killed(self, seconds: float) -> str | None:
        """As :meth:`death`, of a rank that fell silent or that a signal ended, or will within so many seconds."""
        if self.silence is not None:
            return self.silence
        for rank in self.ranks:
            with contextlib.suppress(subprocess.TimeoutExpired):
                if rank.wait(seconds) < 0:
                    return self.death()
        return None

    def end(self, seconds: float) -> None:
        """Stop watching; the ranks have so many seconds to end."""
        self.over.set()
        for rank in self.ranks:
            try:
                rank.wait(seconds)
            except subprocess.TimeoutExpired:
                rank.kill()
                rank.wait()


def rank_timeout(settings: TrainerSettings) -> float | None:
    """``trainer.timeout_minutes`` where a job has several ranks, by its settings or by what started this process."""
    ranks = max(settings.devices * settings.nodes, *(int(os.environ.get(name) or 1) for name in _RANKS_OF))
    return settings.timeout_minutes if ranks > 1 else None


def group_timeout(settings: TrainerSettings) -> timedelta:
    """How long torch's collective calls wait: longer than the watch, whose message names the rank."""
    return timedelta(minutes=settings.timeout_minutes, seconds=2 * GRACE)


@contextmanager
def watched_ranks(timeout: float | None = None) -> Iterator[RankWatch]:
    """In this block, ranks that Lightning starts are watched by us; after it they have ended.

    Args:
        timeout: minutes after which a rank that has not answered ends the job; None where there is one rank.

    Raises:
        RankDied: one was ended by a signal or did not answer, and so this process failed.
    """
    heartbeat = None if timeout is None else Heartbeat(60 * timeout)
    watch = RankWatch(heartbeat)
    if heartbeat is not None:
        heartbeat.start()
        watch.start()  # where another program has started the ranks, nothing else does
    seconds = _TO_END
    try:
        with process_observer(watch.take):
            yield watch
    except Exception as error:
        seconds = _TO_END / 10
        watch.over.set()
        if isinstance(error, RuntimeError) and (death := watch.killed(seconds=1.0)) is not None:
            raise RankDied(death) from error
        if isinstance(error, RuntimeError) and timeout is not None and re.search(r"(?i)timed? ?out", str(error)):
            raise RankDied(
                f"A rank of this job was waited for longer than trainer.timeout_minutes={timeout:g}; look at the "
                "messages of the others. The same command goes on from the last checkpoint."
            ) from error
        raise
    except Left:
        raise
    except BaseException:
        seconds = 0.0
        raise
    finally:
        if heartbeat is not None:
            heartbeat.end()
        watch.end(seconds)
