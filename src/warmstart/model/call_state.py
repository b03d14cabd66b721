"""State of one call of a model, separate for each thread.

Several threads may use one model (a service, a notebook's executor, ``asyncio.to_thread``), and a callback of one call
may start another. A thread-local handles both: a call never waits for another task in its own thread. torch.compile
can read it without a graph break, unlike a context variable.

Shapes: B sources, S source length, E encoder hidden size.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass
class EncodedSource:
    """Encoder states that grafted cross-attention reads."""

    states_BSE: Tensor
    mask_BS: Tensor | None
    kept: dict[int, tuple[Tensor, Tensor]] | None = None
    """Keys and values by decoder layer, for later steps of ``generate``; None in training."""

    def drop(self, stays: Tensor) -> None:
        """Keep only the sources at the indices ``stays``."""
        self.states_BSE = self.states_BSE[stays]
        self.mask_BS = None if self.mask_BS is None else self.mask_BS[stays]
        if self.kept is not None:
            self.kept = {index: (keys[stays], values[stays]) for index, (keys, values) in self.kept.items()}


class CallState(threading.local):
    """State of the current thread's call. The class attributes are the values outside of any call."""

    source: EncodedSource | None = None
    """The source of grafted cross-attention; None skips cross-attention."""
    shares_source: bool = True
    """Whether the beams of a source share its encoder states; a static cache stores them once per beam."""
    reads_source: bool = True
    """False skips cross-attention in a decoder that has its own."""
    length_penalty_kind: str = "transformers"
    """The definition of ``length_penalty``, see ``warmstart.model.generation.beam_search``."""

    @contextmanager
    def during(self, **values: Any) -> Iterator[None]:
        """Set attributes to ``values`` within the context, and restore them after it."""
        before = {name: getattr(self, name) for name in values}
        for name, value in values.items():
            setattr(self, name, value)
        try:
            yield
        finally:
            for name, value in before.items():
                setattr(self, name, value)

    def __reduce__(self) -> Any:
        """Pickle and copy as a new state outside of any call; thread-locals cannot be pickled."""
        return type(self), ()
