"""Warn about a library that is installed in a release which warmstart was not tried with.

The range is read from the installed package's own metadata: pyproject.toml is the only place where it is written.
"""

import os
import warnings
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement
from packaging.version import InvalidVersion


def warn_of_untried() -> None:
    """Warn once of all installed dependencies outside their range, with the command that installs releases within it.

    Only a dependency with an upper bound is looked at; warmstart uses no more than the public API of the others.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0":  # rank 0 warns for all
        return
    try:
        stated = [Requirement(line) for line in requires("warmstart") or ()]
    except PackageNotFoundError:  # a source tree on the path
        return
    bounded = {one.name: one.specifier for one in stated if any("<" in part.operator for part in one.specifier)}
    found: dict[str, str] = {}
    for name, tried in bounded.items():
        try:
            release = version(name)
            if not tried.contains(release, prereleases=True):
                found[name] = release
        except PackageNotFoundError:  # of an extra
            continue
        except InvalidVersion:  # a build of somebody's own
            found[name] = release
    if found:
        installed = ", ".join(f"{name} {release}" for name, release in found.items())
        wanted = " ".join(f"'{name}{bounded[name]}'" for name in found)
        warnings.warn(
            f"warmstart was not tried with {installed}. Install a release that was: pip install {wanted}", stacklevel=3
        )
