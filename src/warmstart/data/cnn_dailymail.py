"""CNN/DailyMail (See et al. 2017, non-anonymised) from the hub: columns article, highlights, id.

The rows stay in the Arrow files that ``datasets`` memory-maps; each is turned into an example when it is read.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, overload

from warmstart.data.hub import Unreachable, hub_reachable
from warmstart.data.settings import DataSettings
from warmstart.data.sources import SPLITS, Example
from warmstart.errors import UserError

HUB_ID = "abisee/cnn_dailymail"
SUBSET = "3.0.0"
_COLUMNS = {"document_column": "article", "summary_column": "highlights"}
_NAMELESS = {"document_column": "document", "summary_column": "summary"}  # the settings' own defaults


class HubRows(Sequence[Example]):
    """A split of a ``datasets`` data set as examples."""

    def __init__(self, rows: Any, document: str, summary: str, identifier: str | None) -> None:
        self._rows, self._document, self._summary, self._identifier = rows, document, summary, identifier

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row = self._rows[index]
        name = str(row[self._identifier]) if self._identifier else str(index)
        return Example(name, row[self._document] or "", row[self._summary] or "")


def read_cnn_dailymail(settings: DataSettings) -> tuple[Mapping[str, Sequence[Example]], Mapping[str, int]]:
    """The three splits of the hub data set.

    Raises:
        UserError: neither the hub nor the local cache has it, or its columns are others.
    """
    import datasets

    path, subset = settings.path or HUB_ID, settings.subset or SUBSET
    online = hub_reachable()
    began = time.monotonic()
    try:
        loaded = datasets.load_dataset(path, subset, revision=settings.revision)
    except Exception as error:  # datasets raises a dozen unrelated types here, of its own, of fsspec and of the client
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if not online:
            raise Unreachable(f"data={settings.name} ({path} {subset}, 1.4 GB)") from error
        raise UserError(
            f"data={settings.name} asks for {path} {subset} (revision {settings.revision}): the hub was reached, but "
            f"after {time.monotonic() - began:.0f} s it failed: {reason}. Check data.path, data.subset, data.revision "
            "and the free disk space, or try again; or use data=news (real news from an installed package) or "
            "data=files data.path=YOUR_FILE, which need no hub."
        ) from error
    return rows_of(loaded, settings), {}


def rows_of(loaded: Any, settings: DataSettings) -> dict[str, HubRows]:
    """The splits of a loaded ``DatasetDict`` under the columns of the settings."""
    missing = [name for name in SPLITS if name not in loaded]
    if missing:
        raise UserError(
            f"data={settings.name}: the data set has no split {', '.join(missing)}, only {', '.join(loaded)}. "
            "Save its rows as files and use data=files."
        )
    available = loaded["train"].column_names
    names = {}
    for option, default in _COLUMNS.items():
        chosen = getattr(settings, option)
        names[option] = default if chosen == _NAMELESS[option] and chosen not in available else chosen
        if names[option] not in available:
            raise UserError(
                f"data.{option}={names[option]} is no column of the data set. It has: {', '.join(available)}. "
                f"Set data.{option} to one of them."
            )
    identifier = settings.id_column or ("id" if "id" in available else None)
    if identifier is not None and identifier not in available:
        raise UserError(
            f"data.id_column={identifier} is no column of the data set. It has: {', '.join(available)}. "
            "Set data.id_column to one of them, or to null."
        )
    return {
        name: HubRows(loaded[name], names["document_column"], names["summary_column"], identifier) for name in SPLITS
    }
