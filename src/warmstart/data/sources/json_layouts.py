"""Read the layouts of a table in which ``DataFrame.to_json(orient=…)`` of pandas writes one object.

The layouts ``records`` and ``values`` are lists and are streamed; see ``warmstart.data.sources.tables``.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from warmstart.data.sources.columns import Columns


def pandas_rows(value: Any, wanted: Sequence[Columns]) -> Iterator[Any] | None:
    """Return the rows of an object in the layout ``split``, ``index`` or ``columns``; None for any other value.

    Args:
        value: The parsed JSON.
        wanted: The columns that are read: they tell the layouts apart.
    """
    if not isinstance(value, dict):
        return None
    names, rows = value.get("columns"), value.get("data")
    if isinstance(names, list) and isinstance(rows, list) and _are(list, rows):
        return (dict(zip(map(str, names), row, strict=False)) for row in rows)
    inner = list(value.values())
    if not inner or not _are(dict, inner):
        return None
    if any(columns.tops(list(row)) for columns in wanted for row in inner):
        return iter(inner)
    numbered = all(row and all(name.isdigit() for name in row) for row in inner)
    if numbered or any(columns.tops(list(value)) for columns in wanted):
        return ({name: column[key] for name, column in value.items() if key in column} for key in inner[0])
    return None


def _are(kind: type, values: Sequence[Any]) -> bool:
    return all(isinstance(value, kind) for value in values)
