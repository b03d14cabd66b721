"""Warn about installed releases of dependencies that warmstart was not tested with.

The tested ranges come from the metadata of the installed package, so only pyproject.toml defines them.
"""

import os
import warnings
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement
from packaging.version import InvalidVersion


def warn_of_untried() -> None:
    """Warn once about all dependencies outside their tested range, with the command that installs tested releases.

    Only dependencies with an upper bound are checked; of all others warmstart uses only the public API.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0":  # rank 0 warns for all
        return
    try:
        stated = [Requirement(line) for line in requires("warmstart") or ()]
    except PackageNotFoundError:  # a source tree on the path
        return
    bounded = {one.name: one.specifier for one in stated if any("<" in bound.operator for bound in one.specifier)}
    found: dict[str, str] = {}
    for name, tried in bounded.items():
        try:
            release = version(name)
            if not tried.contains(release, prereleases=True):
                found[name] = release
        except PackageNotFoundError:  # an extra that is not installed
            continue
        except InvalidVersion:  # a custom build
            found[name] = release
    if found:
        installed = ", ".join(f"{name} {release}" for name, release in found.items())
        wanted = " ".join(f"'{name}{bounded[name]}'" for name in found)
        warnings.warn(
            f"warmstart was not tested with {installed}. Install a tested release: pip install {wanted}", stacklevel=3
        )
