"""Read any data set of the Hugging Face hub, by the names of its columns and splits, or a copy of it in a folder.

The rows stay in the Arrow files that ``datasets`` memory-maps. Each becomes an example on access.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from warmstart.config.data import DataKind, DataSettings
from warmstart.data.hub_access import Unreachable, hub_reachable
from warmstart.data.sources.bad_rows import BadRows
from warmstart.data.sources.base import SPLITS, Example
from warmstart.data.sources.files import split_off
from warmstart.data.sources.hub_folder import load_folder
from warmstart.data.sources.hub_rows import HubRows, TextColumn
from warmstart.data.sources.originals import is_stories, is_xsum, read_originals
from warmstart.data.sources.own_paths import SPLIT_NAMES, by_likeness, is_no_hub_id, is_there, kinds_in, missing
from warmstart.data.sources.parquet import with_nested
from warmstart.data.sources.row_store import SPLIT_OFF, hash64
from warmstart.errors import UserError, listed

HUB_ID = "abisee/cnn_dailymail"
SUBSET = "3.0.0"
CONVERTED = "refs/convert/parquet"
"""The branch with the tables that the hub makes of a data set that is a script."""
_COLUMNS = {"document_column": "article", "summary_column": "highlights"}
_UNSET = {"document_column": "document", "summary_column": "summary"}  # the defaults of DataSettings


def read_hub(settings: DataSettings) -> tuple[Mapping[str, Sequence[Example]], Mapping[str, int]]:
    """Read the splits of a data set of the hub.

    Args:
        settings: The ``data`` group of the config; ``path`` may also be a local copy (see
            ``warmstart.data.sources.hub_folder`` and ``originals``) or ``package_file:`` and a folder of a package.

    Returns:
        Examples by split, and counts of rows for the log.

    Raises:
        UserError: Neither the hub nor the local cache has it, a local copy cannot be read, or columns or splits are
            missing.
    """
    from warmstart.model.assets import resolve_path

    path, subset = settings.path, settings.subset
    if settings.kind is DataKind.cnn_dailymail:
        path, subset = path or HUB_ID, subset or SUBSET
    if path is None:
        raise UserError(f"data={settings.name} reads a data set of the hub. Set data.path to its id or to a folder.")
    path = resolve_path(path)
    folder = Path(path).expanduser()
    if folder.exists() or is_no_hub_id(path):
        if is_stories(folder) or is_xsum(folder):
            return read_originals(folder, settings)
        loaded = _from_folder(folder, subset, settings)
    else:
        loaded = _from_hub(path, subset, settings)
    bad = BadRows(f"data={settings.name} ({path}{f' {subset}' if subset else ''})", settings.on_bad_row)
    read = sum(len(loaded[name]) for name in set(_names_of_splits(loaded, settings).values()) if name)
    splits = rows_of(loaded, settings, bad)
    return splits, bad.report(read)


def _from_folder(folder: Path, subset: str | None, settings: DataSettings) -> Any:
    if not is_there(folder):
        raise missing("data.path", folder)
    if folder.is_file():
        raise UserError(
            f"data={settings.name} expects data.path={folder} to be a folder, but found a file. Read it with "
            f"data=files data.path={folder}."
        )
    try:
        return load_folder(folder, subset, f"data={settings.name} data.path={folder}")
    except UserError:
        raise
    except Exception as error:  # see _from_hub
        raise UserError(
            f"data={settings.name}: {folder} holds {kinds_in(folder)}, but the datasets library cannot read it: "
            f"{_reason(error)} Copy the data set again, or set data.subset to another subset."
        ) from error


def _from_hub(path: str, subset: str | None, settings: DataSettings) -> Any:
    import datasets

    online = hub_reachable()
    began = time.monotonic()
    named = f"{path}{f' {subset}' if subset else ''}"
    # The converted tables of each subset are in a folder of its own, without a README.md that lists them.
    options: dict[str, Any] = {"data_dir": subset or "default"} if settings.revision == CONVERTED else {"name": subset}
    try:
        return datasets.load_dataset(path, revision=settings.revision, **options)
    except Exception as error:  # datasets, fsspec and the hub client raise many unrelated types
        if not online:
            size = "1.4 GB" if path == HUB_ID else "there is no local folder of that name either"
            raise Unreachable(f"data={settings.name} ({named}, {size})") from error
        if subset is not None and (names := _subsets(path, settings.revision)) and subset not in names:
            raise UserError(
                f"data={settings.name}: {path} has no subset {subset!r}. It has: {by_likeness(subset, names)}. Set "
                "data.subset to one of them."
            ) from error
        raise UserError(
            f"data={settings.name} requests {named} (revision {settings.revision}): the hub was reached, but "
            f"loading failed after {time.monotonic() - began:.0f} s: {_reason(error)} Check data.path, data.subset, "
            f"data.revision ({CONVERTED} for a data set that is a script) and the free disk space, or try again. "
            "data=news (real news from an installed package) and data=files data.path=YOUR_FILE need no hub."
        ) from error


def _subsets(path: str, revision: str) -> list[str]:
    import datasets

    try:
        names: list[str] = datasets.get_dataset_config_names(path, revision=revision)
    except Exception:  # noqa: BLE001 - the first error is reported instead
        return []
    return names


def _reason(error: BaseException) -> str:
    """Return the library's message and that of its first cause, as only the latter names a damaged file."""
    first = error
    while (cause := first.__cause__ or first.__context__) is not None:
        first = cause
    both = dict.fromkeys(" ".join(str(one).split()) or type(one).__name__ for one in (error, first))
    return " ".join(f"{text[:300].rstrip('.')}." for text in both)


def rows_of(loaded: Any, settings: DataSettings, bad: BadRows) -> dict[str, HubRows]:
    """Return the splits of a loaded data set, without rows whose document or summary is blank.

    A split that ``data.splits`` sets to null takes 5 % of the training split, by a hash of the document.

    Args:
        loaded: A ``datasets.DatasetDict``.
        settings: The ``data`` group of the config, which names the columns and splits.
        bad: Collects the blank rows.

    Raises:
        UserError: A split or a column is missing, or a column does not hold text.
    """
    names = _names_of_splits(loaded, settings)
    splits = {}
    for ours, theirs in names.items():
        if theirs is not None:
            splits[ours] = _rows_of_split(loaded[theirs], theirs, settings, bad)
    for split in SPLIT_OFF:
        if names[split] is None:
            train = splits["train"]
            hashes = np.array([hash64(f"{split}\0{example.document}") for example in train], dtype=np.uint64)
            taken = split_off(hashes, split, settings)
            splits[split], splits["train"] = train.only(taken), train.only(~taken)
    return {split: splits[split] for split in SPLITS}


def _names_of_splits(loaded: Any, settings: DataSettings) -> dict[str, str | None]:
    """Map each of our splits to its name in the data set."""
    names: dict[str, str | None] = {}
    for split in SPLITS:
        name = getattr(settings.splits, split)
        if name == split and name not in loaded:
            name = next((other for other in SPLIT_NAMES[split] if other in loaded), name)
        if name is not None and name not in loaded:
            way = "one of them" if split == "train" else "one of them, or to null for 5 % of the training split"
            raise UserError(
                f"data={settings.name}: the data set has the splits {listed(loaded)}, but not {name!r}. Set "
                f"data.splits.{split} to {way}."
            )
        names[split] = name
    return names


def _rows_of_split(rows: Any, split: str, settings: DataSettings, bad: BadRows) -> HubRows:
    available = rows.column_names
    named: dict[str, str | None] = {}
    for role in ("document", "summary"):
        option = f"{role}_column"
        chosen = getattr(settings, option)
        absent = chosen == _UNSET[option] and chosen not in available
        named[role] = _COLUMNS[option] if absent and settings.kind is DataKind.cnn_dailymail else chosen
    named["id"] = settings.id_column or ("id" if "id" in available else None)
    columns = {}
    for role, spec in named.items():
        if spec is None:
            continue
        column = TextColumn(spec, settings.join, rows, is_id=role == "id")
        if not column.is_there:
            way = "one of them, or to null" if role == "id" else "one of them"
            raise UserError(
                f"data.{role}_column={spec} is not a column of the data set. It has: "
                f"{by_likeness(spec, with_nested(rows.data.schema))}. Set data.{role}_column to {way}."
            )
        if column.other_type is not None:
            raise UserError(
                f"data={settings.name}: the column {spec} holds {column.other_type[:60]}, not text. Set "
                f"data.{role}_column to a column of texts: {by_likeness(spec, with_nested(rows.data.schema))}."
            )
        columns[role] = column
    empty = {role: columns[role].empty_rows() for role in ("document", "summary")}
    skipped = sorted(set().union(*empty.values()))
    for row in skipped:
        role = "document" if row in empty["document"] else "summary"
        bad.found(f"empty_{role}", f"{split} row {row + 1}", f"has an empty {role}")
    kept = np.delete(np.arange(len(rows)), skipped)
    return HubRows(rows, kept, columns["document"], columns["summary"], columns.get("id"))
