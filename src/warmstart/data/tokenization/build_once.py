"""Folders that are built once and then only read: whole or absent, however many processes ask at the same time."""

from collections.abc import Callable
from pathlib import Path

from warmstart.atomic import has_listed_files, list_files, replacing_folder
from warmstart.locks import locked


def build_once(folder: Path, build: Callable[[Path], None]) -> Path:
    """Return ``folder``, building it first if it is not there, or lacks a file that it was built with.

    ``build`` fills an empty folder of another name, which is renamed when it returns. One process builds while the
    others wait on a file lock. What a killed process left half built is removed by the next one to build.

    Raises:
        UserError: the file system has no flock, and a process of another host may be building.
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
