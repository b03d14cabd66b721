"""A change of a module that lasts as long as any thread is inside a call that needs it.

    with shared_change(decoder, "gelu", exchange):   # exchange() makes the change and returns what takes it back
        decoder.generate(...)

The first call that enters makes the change, the last one that leaves takes it back. A thread that uses the module
meanwhile without such a call asks :func:`is_inside` and gets what it gets on an unchanged module.
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
    """Hold the change ``name`` of ``module`` inside.

    Args:
        module: the module that is changed, the same for every call that shares the change.
        name: which change of the module it is.
        make: makes the change and returns the function that undoes it.
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
    """Whether this thread is inside a :func:`shared_change` of that name."""
    return _entered.names[name] > 0
