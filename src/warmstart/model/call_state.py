"""What a model knows only while a call of it runs, apart for every thread.

One model may serve several threads (a service, a notebook's executor, ``asyncio.to_thread``), and a callback of one
call may start another. A thread-local is enough for both, since a call never waits for another task of its own thread;
unlike a context variable, torch.compile reads it without breaking its graph.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass
class EncodedSource:
    """What the decoder reads: encoder states (B, S, E), their mask (B, S) or None, and keys and values once computed.

    ``kept`` is None in training, where a layer's keys and values serve one forward pass only.
    """

    states_BSE: Tensor
    mask_BS: Tensor | None
    kept: dict[int, tuple[Tensor, Tensor]] | None = None

    def drop(self, stays: Tensor) -> None:
        """Keep only the sources at the indices ``stays``, in the middle of a ``generate``."""
        self.states_BSE = self.states_BSE[stays]
        self.mask_BS = None if self.mask_BS is None else self.mask_BS[stays]
        if self.kept is not None:
            self.kept = {index: (keys[stays], values[stays]) for index, (keys, values) in self.kept.items()}


class CallState(threading.local):
    """The state of the call that this thread runs; the class attributes are what holds outside of one."""

    source: EncodedSource | None = None
    """What grafted cross-attention reads; None: the decoder is the bare language model."""
    shares_source: bool = True
    """Whether the rows of one source share its states; a static cache takes a row for each beam."""
    reads_source: bool = True
    """False: a decoder with cross-attention of its own skips it."""

    @contextmanager
    def during(self, **values: Any) -> Iterator[None]:
        """Set ``values`` inside, and what they were before outside again."""
        before = {name: getattr(self, name) for name in values}
        for name, value in values.items():
            setattr(self, name, value)
        try:
            yield
        finally:
            for name, value in before.items():
                setattr(self, name, value)

    def __reduce__(self) -> Any:
        """A copy of a model begins outside of any call; thread-locals cannot be pickled."""
        return type(self), ()
