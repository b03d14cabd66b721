"""Which rank has stopped answering: each writes a count into the process group's store, and rank 0 watches all others.

A process that was stopped, or whose machine froze, keeps its connections open: a collective call waits for it, and
its time-out names nobody.
"""

import contextlib
import logging
import threading
import time

import torch

from warmstart.compat.torch import default_store

_log = logging.getLogger(__name__)
_PERIOD = 5.0  # seconds between two counts
_POLL = 0.5  # seconds, until the process group is there
_DONE = "done"


class Heartbeat(threading.Thread):
    """Counts while this rank runs; on rank 0, :meth:`silent` says which rank has not counted for ``seconds``."""

    def __init__(self, seconds: float) -> None:
        super().__init__(daemon=True, name="heartbeat")
        self.seconds = seconds
        self._over = threading.Event()
        self._seen: dict[int, tuple[str, float]] = {}

    def run(self) -> None:
        while not torch.distributed.is_initialized():
            if self._over.wait(_POLL):
                return
        rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
        # A clone has its own connection: a call that waits in the main thread does not hold up this one.
        store = default_store().clone()
        count = 0
        with contextlib.suppress(RuntimeError):  # rank 0, which has the store, is gone
            while True:
                over = self._over.wait(min(_PERIOD, self.seconds / 4))
                store.set(_key(rank), _DONE if over else str(count))
                if over:
                    return
                count += 1
                if rank == 0:
                    self._look(store, ranks)

    def end(self) -> None:
        """Tell rank 0 that this one is done, and no longer counts."""
        self._over.set()
        self.join(_POLL)

    def silent(self) -> list[int]:
        """Ranks that have not counted for so long; this process has to be rank 0."""
        now = time.monotonic()
        seen = list(self._seen.items())
        return [rank for rank, (count, at) in seen if count != _DONE and now - at > self.seconds]

    def _look(self, store: torch.distributed.Store, ranks: int) -> None:
        for rank in range(1, ranks):
            count = store.get(_key(rank)).decode() if store.check([_key(rank)]) else ""
            before = self._seen.get(rank)
            if before is None or before[0] != count:
                self._seen[rank] = (count, time.monotonic())


def _key(rank: int) -> str:
    return f"warmstart/heartbeat/{rank}"
