"""Declare an option with its documentation and bounds, and collect all options of a config.

size: int | None = option(None, at_least=1, doc="Largest number of examples in a batch.")
"""

import math
import re
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from enum import Enum
from types import NoneType
from typing import Any, TypeVar, get_args, get_type_hints, overload

_T = TypeVar("_T")


@dataclass(frozen=True)
class Bounds:
    """The numbers or texts that an option may have as its value, or each text of a list."""

    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    below: float | None = None
    no_bound: float | None = None
    choices: tuple[str, ...] = ()

    def allow(self, value: Any) -> bool:
        """Return whether ``value`` is within the bounds; NaN and infinity never are."""
        if self.choices:
            return not self.wrong_choices(value)
        if self.no_bound is not None and value == self.no_bound:
            return True
        # Each comparison is written so that it is false for NaN.
        return bool(
            (self.at_least is None or self.at_least <= value)
            and (self.above is None or self.above < value)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
            and value < math.inf
        )

    def wrong_choices(self, value: Any) -> list[Any]:
        """Return what is not among the choices: the value, or items of a list."""
        return [one for one in (value if isinstance(value, list) else [value]) if one not in self.choices]

    def __bool__(self) -> bool:
        return self != Bounds()

    def __str__(self) -> str:
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.above is not None:
            return f"above {self.above}" + ("" if self.at_most is None else f", and at most {self.at_most}")
        if self.at_most is not None:
            return f"from {self.at_least} to {self.at_most}"
        if self.below is not None:
            return f"from {self.at_least} to below {self.below}"
        return f"at least {self.at_least}" + ("" if self.no_bound is None else f", or {self.no_bound} for no limit")


@dataclass(frozen=True)
class Option:
    """An option and everything declared about it. Defaults are plain values: a member of an enum is given by name."""

    key: str
    kind: Any
    default: Any
    doc: str
    bounds: Bounds
    changes_result: bool
    first_default: Any

    @property
    def type(self) -> str:
        """The type in words: ``int or null``, or the choices of an enum."""
        members = [kind for kind in get_args(self.kind) if kind is not NoneType] or [self.kind]
        if isinstance(self.kind, type) and issubclass(self.kind, Enum):
            return f"one of {', '.join(self.kind.__members__)}"
        if getattr(self.kind, "__origin__", None) is list:
            return f"list of {members[0].__name__}"
        if getattr(self.kind, "__origin__", None) is dict:
            return "mapping"
        return " or ".join(kind.__name__ for kind in members) + (" or null" if NoneType in get_args(self.kind) else "")

    @property
    def summary(self) -> str:
        """The first sentence of the documentation."""
        return re.split(r"(?<=\.)\s", self.doc, maxsplit=1)[0]


@overload
def option(
    default: _T,
    *,
    doc: str,
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    no_bound: float | None = None,
    choices: tuple[str, ...] = (),
    changes_result: bool = True,
    first_default: Any = MISSING,
) -> _T: ...


@overload
def option(
    *,
    default_factory: Callable[[], _T],
    doc: str,
    choices: tuple[str, ...] = (),
    changes_result: bool = True,
    first_default: Any = MISSING,
) -> _T: ...


def option(
    default: Any = MISSING,
    *,
    default_factory: Any = MISSING,
    doc: str,
    changes_result: bool = True,
    first_default: Any = MISSING,
    **bounds: Any,
) -> Any:
    """Declare a field of the config, or a group of fields.

    Args:
        default: As in ``dataclasses.field``.
        default_factory: As in ``dataclasses.field``.
        doc: What the option sets, its unit, and when to change it. Error messages show only the first sentence.
        changes_result: False if no number in a result depends on the option or, for a group, on any of its fields. Such
            an option is not part of the config hash.
        first_default: The value that earlier releases used, if it differs from ``default``: the old default of an
            option, or for a new option the value that gives the old behavior. The config hash leaves out options that
            have this value. So earlier runs keep their hash, and a run with the new default has another one.
        **bounds: ``at_least``, ``at_most``, ``above`` and ``below`` limit a number; null is allowed if the type allows
            it. ``no_bound`` is a single number outside the limits that is also allowed, because it turns the option
            off. ``choices`` are the allowed texts.
    """
    stated = {
        "doc": doc,
        "bounds": Bounds(**bounds),
        "changes_result": changes_result,
        "first_default": first_default,
    }
    if default_factory is not MISSING:
        return field(default_factory=default_factory, metadata=stated)
    return field(default=default, metadata=stated)


def options(schema: type, prefix: str = "", *, changes_result: bool = True) -> dict[str, Option]:
    """Return every option of a dataclass and its groups by key, such as ``optim.encoder_rate``."""
    found: dict[str, Option] = {}
    kinds = get_type_hints(schema)
    for one in fields(schema):
        key, kind, stated = prefix + one.name, kinds[one.name], one.metadata
        changes = changes_result and stated["changes_result"]
        if is_dataclass(kind):
            found |= options(kind, f"{key}.", changes_result=changes)  # type: ignore[arg-type]
            continue
        default = _plain(one.default if one.default_factory is MISSING else one.default_factory())
        first = default if stated["first_default"] is MISSING else _plain(stated["first_default"])
        found[key] = Option(key, kind, default, stated["doc"], stated["bounds"], changes, first)
    return found


def keys_that_change_nothing(schema: type, prefix: str = "") -> tuple[str, ...]:
    """Return the keys of a dataclass and its groups that no result depends on; such a group counts as one key."""
    found: list[str] = []
    kinds = get_type_hints(schema)
    for one in fields(schema):
        if not one.metadata["changes_result"]:
            found.append(prefix + one.name)
        elif is_dataclass(kinds[one.name]):
            found += keys_that_change_nothing(kinds[one.name], f"{prefix}{one.name}.")
    return tuple(found)


def _plain(value: Any) -> Any:
    return value.name if isinstance(value, Enum) else value
