"""One sentence for a private part that is not where it was read."""

from importlib.metadata import version
from typing import Any


def assert_has(owner: Any, name: str, library: str, read_in: str) -> None:
    """Fail with the library, both releases and the module to look at if ``owner`` has no ``name``."""
    module = {"hydra-core": "hydra"}.get(library, library)
    where = getattr(owner, "__name__", type(owner).__name__)
    assert hasattr(owner, name), (
        f"{library} {version(library)} has no {where}.{name}, which warmstart uses and which was read in {read_in}. "
        f"Look for what replaced it, and change src/warmstart/compat/{module}.py."
    )


def assert_parameters(found: list[str], wanted: list[str], what: str, library: str, read_in: str) -> None:
    """Fail if a function's parameters do not begin with those that we pass or override."""
    assert found[: len(wanted)] == wanted, (
        f"{what} of {library} {version(library)} takes {found}; in {read_in} it began with {wanted}. "
        "Change the method or call of warmstart that has its name."
    )
