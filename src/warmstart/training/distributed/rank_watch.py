"""Watch the other ranks of a job: if one dies or stops responding, end the job with a message.

Lightning would kill all ranks and this process without a message, which would also end the sweep that runs the job.
Here, with gloo, the next collective call of this process fails, and the failure becomes a message. With NCCL the call
keeps waiting, so the process prints the message and exits after a grace period. Ranks that another program started are
watched only by their heartbeat.
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
from typing import Any

from warmstart.compat.lightning import process_observer
from warmstart.config.training import TrainerSettings
from warmstart.errors import LISTED, Interrupted, RankDied
from warmstart.printing import say
from warmstart.training.callbacks.interrupt import SIGNALS
from warmstart.training.distributed.heartbeat import Heartbeat

_log = logging.getLogger(__name__)
_POLL = 0.5  # seconds
GRACE = 30.0  # seconds for this process to fail by itself after a rank died
_EXIT_SECONDS = 60.0  # for the other ranks to exit after this one; a tenth of it after a failure
_RANK_COUNTS = ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
_SHUTDOWN_STATUSES = {128 + number for number in SIGNALS}  # of ranks that a signal ended gracefully


class RankWatch(threading.Thread):
    """Watches the other ranks of one job that this process started.

    Args:
        heartbeat: finds ranks that stopped responding; None if there is one rank.
    """

    def __init__(self, heartbeat: Heartbeat | None = None) -> None:
        """Prepare the thread; ``take`` starts it."""
        super().__init__(daemon=True, name="rank-watch")
        self.ranks: list[subprocess.Popen[Any]] = []
        self.silence: str | None = None
        self._heartbeat = heartbeat
        self.over = threading.Event()

    def take(self, ranks: list[subprocess.Popen[Any]]) -> None:
        """Watch these processes; Lightning's launcher calls this instead of its own observer."""
        self.ranks = list(ranks)
        if not self.is_alive():
            self.start()

    def run(self) -> None:
        """Wait for a rank that dies or falls silent, then end the other ranks and, after a grace period, this process.

        The exit status is then 1.
        """
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
        """Return the message about the first rank that failed, or None if no rank has."""
        for number, rank in enumerate(self.ranks, 1):
            status = rank.poll()
            if status is None or status == 0 or status in _SHUTDOWN_STATUSES:
                continue
            how = f"failed with status {status}; see its own message above"
            if status < 0:
                how = f"was ended by {signal.Signals(-status).name}"
                how += " (the system may have run out of memory)" if status == -signal.SIGKILL else ""
            return f"Rank {number} of this job {how}. The same command resumes from the last checkpoint."
        return None

    def _noted_silence(self) -> str | None:
        if self._heartbeat is not None and (silent := self._heartbeat.silent()):
            ranks = ", ".join(map(str, silent[:LISTED]))
            self.silence = (
                f"Rank {ranks} of this job has not responded for trainer.timeout_minutes="
                f"{self._heartbeat.seconds / 60:g}: its process or its machine has stopped. The same command resumes "
                "from the last checkpoint."
            )
        return self.silence

    def killed(self, seconds: float) -> str | None:
        """Return the message about a rank that fell silent or was ended by a signal, or None.

        Args:
            seconds: time to wait for each rank to end.
        """
        if self.silence is not None:
            return self.silence
        for rank in self.ranks:
            with contextlib.suppress(subprocess.TimeoutExpired):
                if rank.wait(seconds) < 0:
                    return self.death()
        return None

    def end(self, seconds: float) -> None:
        """Stop watching; ranks that have not ended after ``seconds`` are killed."""
        self.over.set()
        for rank in self.ranks:
            try:
                rank.wait(seconds)
            except subprocess.TimeoutExpired:
                rank.kill()
                rank.wait()


def rank_timeout(settings: TrainerSettings) -> float | None:
    """Return ``trainer.timeout_minutes`` if the job has several ranks by its settings or environment, else None."""
    ranks = max(settings.devices * settings.nodes, *(int(os.environ.get(name) or 1) for name in _RANK_COUNTS))
    return settings.timeout_minutes if ranks > 1 else None


def group_timeout(settings: TrainerSettings) -> timedelta:
    """Return the timeout of torch's collective calls: longer than that of the watch, whose message names the rank."""
    return timedelta(minutes=settings.timeout_minutes, seconds=2 * GRACE)


@contextmanager
def watched_ranks(timeout: float | None = None) -> Iterator[RankWatch]:
    """Watch the ranks that Lightning starts in this block; at its end they have exited.

    Args:
        timeout: minutes after which a rank that does not respond ends the job; None if there is one rank.

    Raises:
        RankDied: this process failed because a rank was ended by a signal or stopped responding.
    """
    heartbeat = None if timeout is None else Heartbeat(60 * timeout)
    watch = RankWatch(heartbeat)
    if heartbeat is not None:
        heartbeat.start()
        watch.start()  # Lightning only does so for ranks that it starts itself
    seconds = _EXIT_SECONDS
    try:
        with process_observer(watch.take):
            yield watch
    except Exception as error:
        seconds = _EXIT_SECONDS / 10
        watch.over.set()
        if isinstance(error, RuntimeError) and (death := watch.killed(seconds=1.0)) is not None:
            raise RankDied(death) from error
        if isinstance(error, RuntimeError) and timeout is not None and re.search(r"(?i)timed? ?out", str(error)):
            raise RankDied(
                f"A rank of this job did not respond within trainer.timeout_minutes={timeout:g}; see the messages of "
                "the other ranks. The same command resumes from the last checkpoint."
            ) from error
        raise
    except Interrupted:
        raise
    except BaseException:
        seconds = 0.0
        raise
    finally:
        if heartbeat is not None:
            heartbeat.end()
        watch.end(seconds)
