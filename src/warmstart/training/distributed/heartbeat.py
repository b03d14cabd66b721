"""Find a rank that has stopped responding.

Each rank increments a count in the process group's store, and rank 0 watches the counts. A stopped process or a frozen
machine keeps its connections open: collective calls wait for it, and the error after their timeout does not name it.
"""

import contextlib
import logging
import threading
import time
from typing import Any

import torch

from warmstart.compat.torch import default_store

_log = logging.getLogger(__name__)
_PERIOD = 5.0  # seconds between two counts
_POLL = 0.5  # seconds between checks for the process group
_DONE = "done"


class Heartbeat(threading.Thread):
    """Counts while this rank runs; on rank 0, ``silent`` lists the ranks that have stopped counting.

    Args:
        seconds: time without a new count after which a rank is silent.
    """

    def __init__(self, seconds: float) -> None:
        """Prepare the thread; ``start`` runs it."""
        super().__init__(daemon=True, name="heartbeat")
        self.seconds = seconds
        self._over = threading.Event()
        self._seen: dict[int, tuple[str, float]] = {}

    def run(self) -> None:
        """Count until ``end`` is called or rank 0 is gone."""
        while not torch.distributed.is_initialized():
            if self._over.wait(_POLL):
                return
        rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
        # A clone has its own connection, so calls of the main thread that wait do not block this thread.
        store = default_store().clone()
        count = 0
        with contextlib.suppress(RuntimeError):  # raised if rank 0, which holds the store, is gone
            while True:
                over = self._over.wait(min(_PERIOD, self.seconds / 4))
                store.set(_key(rank), _DONE if over else str(count))
                if over:
                    return
                count += 1
                if rank == 0:
                    self._look(store, ranks)

    def end(self) -> None:
        """Report to rank 0 that this rank has finished, and stop counting."""
        self._over.set()
        self.join(_POLL)

    def silent(self) -> list[int]:
        """Return the ranks without a new count for ``seconds``; call it on rank 0."""
        now = time.monotonic()
        seen = list(self._seen.items())
        return [rank for rank, (count, at) in seen if count != _DONE and now - at > self.seconds]

    def _look(self, store: Any, ranks: int) -> None:
        for rank in range(1, ranks):
            count = store.get(_key(rank)).decode() if store.check([_key(rank)]) else ""
            before = self._seen.get(rank)
            if before is None or before[0] != count:
                self._seen[rank] = (count, time.monotonic())


def _key(rank: int) -> str:
    return f"warmstart/heartbeat/{rank}"
