"""Read CNN/DailyMail (See et al. 2017, non-anonymised) from the hub: columns article, highlights, id.

The rows stay in the Arrow files that ``datasets`` memory-maps. Each becomes an example on access.
"""

import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from warmstart.config.data import DataSettings
from warmstart.data.hub_access import Unreachable, hub_reachable
from warmstart.data.sources.bad_rows import BadRows
from warmstart.data.sources.base import SPLITS, Example, LazyRows
from warmstart.data.sources.own_paths import kinds_in, missing
from warmstart.errors import UserError, listed

HUB_ID = "abisee/cnn_dailymail"
SUBSET = "3.0.0"
SHORT_BYTES = 64  # only texts shorter than this are checked for being blank
_COLUMNS = {"document_column": "article", "summary_column": "highlights"}
_UNSET = {"document_column": "document", "summary_column": "summary"}  # the defaults of DataSettings


class HubRows(LazyRows):
    """A split of a ``datasets`` data set as examples.

    Args:
        rows: The split, a ``datasets.Dataset``.
        kept: Indices of the rows to keep.
        document: Column of the documents.
        summary: Column of the summaries.
        identifier: Column of the ids; None uses the row numbers.
    """

    def __init__(self, rows: Any, kept: np.ndarray, document: str, summary: str, identifier: str | None) -> None:
        self._rows, self._kept = rows, kept
        self._document, self._summary, self._identifier = document, summary, identifier

    def __len__(self) -> int:
        return len(self._kept)

    def _read(self, index: int) -> Example:
        number = int(self._kept[index])
        row = self._rows[number]
        name = str(row[self._identifier]) if self._identifier else str(number)
        return Example(name, row[self._document], row[self._summary])

    @property
    def content(self) -> str:
        """A hash of the rows, computed from the Arrow buffers without decoding them."""
        columns = [self._document, self._summary, *([self._identifier] if self._identifier else [])]
        digest = hashlib.sha256(self._kept.tobytes())
        for batch in self._rows.data.select(columns).to_batches():
            digest.update(batch.serialize())
        return digest.hexdigest()


def read_cnn_dailymail(settings: DataSettings) -> tuple[Mapping[str, Sequence[Example]], Mapping[str, int]]:
    """Read the three splits of the hub data set.

    Args:
        settings: The ``data`` group of the config; ``path`` may also be a local folder in the layout of the hub.

    Returns:
        Examples by split, and counts of rows for the log.

    Raises:
        UserError: Neither the hub nor the local cache has it, a local folder cannot be read, or columns are missing.
    """
    path, subset = settings.path or HUB_ID, settings.subset or SUBSET
    folder = Path(path).expanduser()
    if folder.exists() or path.startswith((".", "/", "~")) or path.count("/") > 1:
        loaded = _from_folder(folder, subset, settings)
    else:
        loaded = _from_hub(path, subset, settings)
    bad = BadRows(f"data={settings.name} ({path} {subset})", settings.on_bad_row)
    splits = rows_of(loaded, settings, bad)
    return splits, bad.report(sum(len(loaded[name]) for name in SPLITS))


def _from_folder(folder: Path, subset: str, settings: DataSettings) -> Any:
    import datasets

    if not folder.exists():
        raise missing("data.path", folder)
    try:
        return datasets.load_dataset(str(folder), subset)
    except Exception as error:  # see _from_hub
        if folder.is_file():
            found, fix = "a file", f"Read it with data=files data.path={folder}."
        elif (folder / "dataset_dict.json").exists() or (folder / "dataset_info.json").exists():
            found = "a data set that save_to_disk wrote"
            fix = (
                "Write each split to a file, datasets.load_from_disk(FOLDER)[SPLIT].to_parquet('NEW/SPLIT.parquet') "
                "and use data=files data.path=NEW data.document_column=article data.summary_column=highlights."
            )
        elif next(folder.rglob("*.story"), None) is not None:
            found = f"{kinds_in(folder)} of the original distribution"
            fix = f"Use {HUB_ID} from the hub, or write each story as x.txt with x.summary.txt and use data=files."
        else:
            found = kinds_in(folder)
            fix = f"Add the README.md of {HUB_ID}, or set data.subset=default to read all of its files."
        raise UserError(
            f"data={settings.name} expects {folder} in the layout of the hub, with a README.md that lists the files of "
            f"subset {subset}, but found {found}. The datasets library reports: {_reason(error)} {fix}"
        ) from error


def _from_hub(path: str, subset: str, settings: DataSettings) -> Any:
    import datasets

    online = hub_reachable()
    began = time.monotonic()
    try:
        return datasets.load_dataset(path, subset, revision=settings.revision)
    except Exception as error:  # datasets, fsspec and the hub client raise many unrelated types
        if not online:
            size = "1.4 GB" if path == HUB_ID else "there is no local folder of that name either"
            raise Unreachable(f"data={settings.name} ({path} {subset}, {size})") from error
        raise UserError(
            f"data={settings.name} requests {path} {subset} (revision {settings.revision}): the hub was reached, but "
            f"loading failed after {time.monotonic() - began:.0f} s: {_reason(error)} Check data.path, data.subset, "
            "data.revision and the free disk space, or try again. data=news (real news from an installed package) "
            "and data=files data.path=YOUR_FILE need no hub."
        ) from error


def _reason(error: BaseException) -> str:
    """Return the library's message and that of its first cause, as only the latter names a damaged file."""
    first = error
    while (cause := first.__cause__ or first.__context__) is not None:
        first = cause
    both = dict.fromkeys(" ".join(str(one).split()) or type(one).__name__ for one in (error, first))
    return " ".join(f"{text[:300].rstrip('.')}." for text in both)


def rows_of(loaded: Any, settings: DataSettings, bad: BadRows) -> dict[str, HubRows]:
    """Return the splits of a loaded data set, without rows whose document or summary is blank.

    Args:
        loaded: A ``datasets.DatasetDict``.
        settings: The ``data`` group of the config, which names the columns.
        bad: Collects the blank rows.

    Raises:
        UserError: A split or a column is missing, or a column does not hold text.
    """
    lacking = [name for name in SPLITS if name not in loaded]
    if lacking:
        raise UserError(
            f"data={settings.name}: the data set has the splits {listed(loaded)}, but not {listed(lacking)}. "
            "Save its rows as files and use data=files."
        )
    available = loaded["train"].column_names
    names = {}
    for option, default in _COLUMNS.items():
        chosen = getattr(settings, option)
        names[option] = default if chosen == _UNSET[option] and chosen not in available else chosen
        if names[option] not in available:
            raise UserError(
                f"data.{option}={names[option]} is not a column of the data set. It has: {listed(available)}. "
                f"Set data.{option} to one of them."
            )
    identifier = settings.id_column or ("id" if "id" in available else None)
    if identifier is not None and identifier not in available:
        raise UserError(
            f"data.id_column={identifier} is not a column of the data set. It has: {listed(available)}. "
            "Set data.id_column to one of them, or to null."
        )
    document, summary = names["document_column"], names["summary_column"]
    splits = {}
    for name in SPLITS:
        empty = {role: _empty_rows(loaded[name], role, names, settings) for role in ("document", "summary")}
        for row in sorted(set().union(*empty.values())):
            role = "document" if row in empty["document"] else "summary"
            bad.found(f"empty_{role}", f"{name} row {row + 1}", f"has an empty {role}")
        kept = np.delete(np.arange(len(loaded[name])), sorted(set().union(*empty.values())))
        splits[name] = HubRows(loaded[name], kept, document, summary, identifier)
    return splits


def _empty_rows(rows: Any, role: str, names: dict[str, str], settings: DataSettings) -> set[int]:
    import pyarrow
    import pyarrow.compute

    column = names[f"{role}_column"]
    cells = rows.data.column(column)
    if not (pyarrow.types.is_string(cells.type) or pyarrow.types.is_large_string(cells.type)):
        raise UserError(
            f"data={settings.name}: the column {column} holds {cells.type}, not text. Set data.{role}_column to a "
            "column of texts."
        )
    # By the texts' lengths, which Arrow stores together: reading all texts would take longer than everything else.
    lengths = pyarrow.compute.fill_null(pyarrow.compute.binary_length(cells), 0).to_numpy()
    return {int(i) for i in np.flatnonzero(lengths < SHORT_BYTES) if not (cells[int(i)].as_py() or "").strip()}
