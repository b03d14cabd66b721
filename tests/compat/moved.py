"""Assertions about private APIs, with messages that say what to change."""

from importlib.metadata import version
from typing import Any


def assert_has(owner: Any, name: str, library: str, read_in: str) -> None:
    """Fail if ``owner`` has no ``name``; the message names both releases and the module to change."""
    module = {"hydra-core": "hydra"}.get(library, library)
    where = getattr(owner, "__name__", type(owner).__name__)
    assert hasattr(owner, name), (
        f"{library} {version(library)} has no {where}.{name}, which warmstart uses; {read_in} has it. "
        f"Find its replacement, and change src/warmstart/compat/{module}.py."
    )


def assert_parameters(found: list[str], wanted: list[str], what: str, library: str, read_in: str) -> None:
    """Fail if a function's first parameters are not those that warmstart passes or overrides."""
    assert found[: len(wanted)] == wanted, (
        f"{what} of {library} {version(library)} has the parameters {found}; in {read_in} the first ones are {wanted}. "
        "Change the method or the call of this name in warmstart."
    )
