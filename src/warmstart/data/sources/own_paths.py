"""Find the files that an option names: a file, the shards of a table, a folder of splits, a folder of texts."""

import difflib
import glob
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from warmstart.data.sources.tables import PACKED, SUFFIXES, table_suffix
from warmstart.errors import UserError, listed

SPLIT_NAMES = {"train": ("train", "training"), "validation": ("validation", "val", "valid", "dev"), "test": ("test",)}
_NO_FOLDER = "the folder does not exist either"
_SHARD = re.compile(r"^(?P<name>.*)-(?P<number>\d+)-of-(?P<total>\d+)\b")


def is_there(path: Path) -> bool:
    """Return whether a path exists or is a pattern, such as ``shards/part-*.jsonl``, that some file matches."""
    return path.exists() or bool(matches(path))


def is_no_hub_id(path: str) -> bool:
    """Return whether ``path`` can only be a path on this machine, not the id of a data set of the hub."""
    return path.startswith((".", "/", "~")) or path.count("/") > 1


def matches(path: Path) -> list[Path]:
    """Return the files that a pattern matches, in order; none if the path is no pattern."""
    if not glob.has_magic(str(path)):
        return []
    return sorted(Path(found) for found in glob.glob(str(path), recursive=True) if Path(found).is_file())


def split_paths(folder: Path) -> dict[str, Path]:
    """Find the file, the shards or the subfolder of each split in a folder.

    Returns:
        A path for each split found; for shards such as ``train-00000-of-00003.parquet`` a pattern.
    """
    found: dict[str, Path] = {}
    for split, names in SPLIT_NAMES.items():
        suffixes = (*SUFFIXES, *PACKED)
        candidates = [folder / f"{name}{suffix}" for name in names for suffix in (*suffixes, "")]
        patterns = [Path(glob.escape(str(folder))) / f"{name}[-_.]*{suffix}" for name in names for suffix in suffixes]
        whole = next((path for path in candidates if (path.is_file() if path.suffix else path.is_dir())), None)
        chosen = whole or next((pattern for pattern in patterns if matches(pattern)), None)
        if chosen is None:
            continue
        for path in [whole] if whole else matches(chosen):
            if leads_out(path, folder):
                raise UserError(
                    f"data.path={folder}: {path.name} is a link to {path.resolve()}, outside the folder, and is "
                    f"not followed. To use it, set data.{split}_path={path}."
                )
        found[split] = chosen
    return found


def leads_out(path: Path, folder: Path) -> bool:
    """Return whether links lead from ``path`` to outside ``folder``, as they may in an unpacked archive."""
    return not path.resolve().is_relative_to(folder.resolve())


def table_files(path: Path, where: str) -> list[Path]:
    """Return the files of a table: the file itself, those that match a pattern, or the shards in a folder.

    Args:
        path: An existing file or folder, or a pattern.
        where: The option and path as the user gave them, for messages.

    Returns:
        The files, ordered by name; none if a folder holds texts (x.txt with x.summary.txt) or no tables.

    Raises:
        UserError: The tables are of several types, a shard is missing, or a link leads out of the folder.
    """
    if not path.is_dir():
        return [path] if path.exists() else checked_shards(matches(path), where)
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and not _is_hidden(file, path)]
    tables = [file for file in files if table_suffix(file)]
    if not tables or any(file.name.endswith(".summary.txt") for file in files):
        return []
    kinds = {table_suffix(file) for file in tables}
    if len(kinds) > 1:
        raise UserError(
            f"{where} holds {kinds_in(path)}: tables of several types. Set it to one file, or to a folder with the "
            "parts of one table."
        )
    for file in tables:
        if leads_out(file, path):
            raise UserError(
                f"{where}: {file.name} is a link to {file.resolve()}, outside the folder, and is not followed. To use "
                "the file, copy it into the folder."
            )
    return checked_shards(tables, where)


def checked_shards(files: Sequence[Path], where: str) -> list[Path]:
    """Return the files, unless a shard such as ``train-00001-of-00003.parquet`` is missing.

    Raises:
        UserError: A shard is missing.
    """
    totals: dict[tuple[Path, str], tuple[int, set[int]]] = {}
    for file in files:
        if found := _SHARD.match(file.name):
            key = (file.parent, f"{found['name']}-*-of-{found['total']}")
            totals.setdefault(key, (int(found["total"]), set()))[1].add(int(found["number"]))
    for (_, name), (total, numbers) in totals.items():
        if len(numbers) < total:
            absent = [f"{name.replace('*', f'{i:05d}')}" for i in range(min(total, 10_000)) if i not in numbers]
            raise UserError(
                f"{where}: only {len(numbers)} of {total} shards are there; missing: {listed(absent)}. Copy them too."
            )
    return list(files)


def kinds_in(folder: Path) -> str:
    """Describe the files of a folder by suffix, for a message."""
    kinds: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            kinds.setdefault(path.suffix or "other", []).append(path)
    most = sorted(kinds.items(), key=lambda kind: -len(kind[1]))[:3]
    return ", ".join(f"{len(found)} {kind} files such as {found[0].name!r}" for kind, found in most) or "nothing"


def missing(option: str, path: Path) -> UserError:
    """Return the error for a path that does not exist; it lists the folder's entries, similar names first."""
    near = path.parent
    names = sorted(p.name for p in near.iterdir()) if near.is_dir() else []
    found = by_likeness(path.name, names) if near.is_dir() else _NO_FOLDER
    return UserError(f"{option}={path} does not exist. In {near}: {found or 'nothing'}. Correct {option}.")


def by_likeness(name: str, names: Iterable[str]) -> str:
    """List names for a message, those like ``name`` first."""
    every = list(names)
    like = difflib.get_close_matches(name, every)
    return listed([*like, *(one for one in every if one not in like)])


def _is_hidden(file: Path, folder: Path) -> bool:
    """Return whether a file is a mark of the program that wrote the others, such as ``_SUCCESS`` or ``.part.crc``."""
    return any(part.startswith((".", "_")) for part in file.relative_to(folder).parts)
