"""Build a cache folder once, complete or not at all, with any number of processes at the same time."""

from collections.abc import Callable
from pathlib import Path

from warmstart.atomic import has_listed_files, list_files, replacing_folder
from warmstart.locks import locked


def build_once(folder: Path, build: Callable[[Path], None]) -> Path:
    """Return a folder; if it is missing or lacks one of its files, build it first.

    One process builds while the others wait on a file lock. The next build removes what a killed process left.

    Args:
        folder: The folder.
        build: Fills an empty temporary folder, which is renamed to ``folder`` when it returns.

    Raises:
        UserError: The file system has no flock, and a process of another host may be building.
    """
    if has_listed_files(folder):
        return folder
    with locked(folder.parent / f"{folder.name}.lock"):
        if has_listed_files(folder):
            return folder
        with replacing_folder(folder) as partial:
            build(partial)
            list_files(partial)
    return folder
