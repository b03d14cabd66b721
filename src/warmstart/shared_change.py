"""Change a module for as long as any thread is inside a block that needs the change.

    with shared_change(decoder, "gelu", replace_gelu):  # replace_gelu() returns the undo function
        decoder.generate(...)

The first thread that enters a block makes the change, and the last one that leaves undoes it. Other threads may use the
module in the meantime: the changed code calls ``is_inside`` and behaves as before for them.
"""

import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

_LOCK = threading.Lock()


@dataclass
class _Change:
    calls: int
    undo: Callable[[], None]


_changes: "weakref.WeakKeyDictionary[nn.Module, dict[str, _Change]]" = weakref.WeakKeyDictionary()


class _Entered(threading.local):
    def __init__(self) -> None:
        self.names: Counter[str] = Counter()


_entered = _Entered()


@contextmanager
def shared_change(module: nn.Module, name: str, make: Callable[[], Callable[[], None]]) -> Iterator[None]:
    """Keep a module changed during the block.

    Args:
        module: The module to change. Blocks with the same module and name share one change.
        name: Name of the change.
        make: Makes the change and returns the function that undoes it.
    """
    with _LOCK:
        changes = _changes.setdefault(module, {})
        if name not in changes:
            changes[name] = _Change(0, make())
        changes[name].calls += 1
    _entered.names[name] += 1
    try:
        yield
    finally:
        _entered.names[name] -= 1
        with _LOCK:
            changes[name].calls -= 1
            if not changes[name].calls:
                changes.pop(name).undo()


def is_inside(name: str) -> bool:
    """Return whether this thread is inside a block of ``shared_change`` with that name."""
    return _entered.names[name] > 0
