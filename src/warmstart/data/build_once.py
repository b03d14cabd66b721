"""Folders that are built once and then only read: whole or absent, however many processes ask at the same time."""

import json
from collections.abc import Callable
from pathlib import Path

from warmstart.atomic import replacing_folder, write_text
from warmstart.locks import locked

_FILES = "files.json"  # what the builder left, and how long: a cleaner of old files may take some


def build_once(folder: Path, build: Callable[[Path], None]) -> Path:
    """Return ``folder``, building it first if it is not there, or lacks a file that it was built with.

    ``build`` fills an empty folder of another name, which is renamed when it returns. One process builds while the
    others wait on a file lock. What a killed process left half built is removed by the next one to build.

    Raises:
        UserError: the file system has no flock, and a process of another host may be building.
    """
    if _is_whole(folder):
        return folder
    with locked(folder.parent / f"{folder.name}.lock"):
        if _is_whole(folder):
            return folder
        with replacing_folder(folder) as partial:
            build(partial)
            sizes = {str(path.relative_to(partial)): path.stat().st_size for path in _files(partial)}
            write_text(partial / _FILES, json.dumps(sizes))
    return folder


def _is_whole(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    try:
        wanted = json.loads((folder / _FILES).read_text())
    except (FileNotFoundError, ValueError):  # of an earlier version, or the list itself was taken or damaged
        return False
    found = {str(path.relative_to(folder)): path.stat().st_size for path in _files(folder)}
    return wanted.items() <= found.items()


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
