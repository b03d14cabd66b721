"""Load a data set of the hub from a folder that ``hf download`` or ``save_to_disk`` wrote, also without README.md."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from warmstart.data.sources.own_paths import SPLIT_NAMES, by_likeness, checked_shards, kinds_in, matches
from warmstart.data.sources.tables import table_suffix
from warmstart.errors import UserError

_BUILDERS = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".csv": "csv", ".tsv": "csv"}
_KEYWORDS = tuple(name for names in SPLIT_NAMES.values() for name in names)
_SHARD = re.compile(r"-\d+-of-\d+$")
_AFTER_NAME = re.compile(rf"^.*[-.]({'|'.join(_KEYWORDS)})$")


def load_folder(folder: Path, subset: str | None, named: str) -> Any:
    """Load a folder, or the files that a pattern matches, as a ``datasets.DatasetDict``.

    Args:
        folder: The folder or pattern.
        subset: ``data.subset``.
        named: The option and path as the user gave them, for messages.

    Raises:
        UserError: The folder lacks the subset or a shard.
    """
    import datasets

    if (folder / "dataset_dict.json").is_file():
        return datasets.load_from_disk(str(folder))
    if (folder / "state.json").is_file():
        return datasets.DatasetDict({"train": datasets.load_from_disk(str(folder))})
    if _lists_its_files(folder):
        names = datasets.get_dataset_config_names(str(folder))
        if subset is not None and subset not in names:
            raise _no_subset(named, subset, names)
        return datasets.load_dataset(str(folder), subset)
    splits = _split_files(folder, subset, named)
    if not splits:
        raise UserError(
            f"{named} expects a copy of the data set: the folder of the hub, one that save_to_disk wrote, or the "
            f"original files. Found {kinds_in(folder)}. Read files of your own with data=files."
        )
    kinds = {table_suffix(file) for files in splits.values() for file in files}
    if len(kinds) > 1:
        raise UserError(f"{named} holds {kinds_in(folder)}: tables of several types. Keep one type in the folder.")
    suffix = kinds.pop().removesuffix(".gz")
    files = {split: [str(file) for file in checked_shards(found, named)] for split, found in splits.items()}
    options: dict[str, Any] = {"sep": "\t"} if suffix == ".tsv" else {}
    return datasets.load_dataset(_BUILDERS[suffix], data_files=files, **options)


def _lists_its_files(folder: Path) -> bool:
    readme = folder / "README.md"
    return readme.is_file() and "config_name:" in readme.read_text(encoding="utf-8", errors="replace")


def _split_files(folder: Path, subset: str | None, named: str) -> dict[str, list[Path]]:
    """Return the files of each split by the names of files and folders."""
    if not folder.exists():
        return _by_split(matches(folder))
    own = ["data", "default", "."] if subset in (None, "default") else [subset, f"data/{subset}"]
    for inside in own:
        if splits := _splits_in(folder / str(inside)):
            return splits
    subsets = [path.name for path in sorted(folder.iterdir()) if path.is_dir() and _splits_in(path)]
    if subset is None and len(subsets) == 1:
        return _splits_in(folder / subsets[0])
    if subsets:
        raise _no_subset(named, subset, subsets)
    return _splits_in(folder)  # the folder of the subset itself


def _splits_in(folder: Path) -> dict[str, list[Path]]:
    if not folder.is_dir():
        return {}
    splits = _by_split(path for path in sorted(folder.iterdir()) if path.is_file())
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
        if inner.name.removeprefix("partial-") in _KEYWORDS:
            splits.setdefault(inner.name, []).extend(p for p in sorted(inner.rglob("*")) if table_suffix(p))
    return {split: files for split, files in splits.items() if files}


def _by_split(files: Iterable[Path]) -> dict[str, list[Path]]:
    splits: dict[str, list[Path]] = {}
    for file in files:
        if suffix := table_suffix(file):
            name = _SHARD.sub("", file.name[: -len(suffix)])
            found = _AFTER_NAME.match(name)
            splits.setdefault(found[1] if found else name, []).append(file)
    return splits


def _no_subset(named: str, subset: str | None, names: Iterable[str]) -> UserError:
    found = by_likeness(subset or "", names)
    asked = "has several subsets" if subset is None else f"has no subset {subset!r}"
    return UserError(f"{named} {asked}. It has: {found}. Set data.subset to one of them.")
