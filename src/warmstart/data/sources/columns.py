r"""Find the text of one or several columns in a row, also inside nested values.

Columns("translation.de", "\n").value({"translation": {"de": "Haus"}})      # "Haus"
Columns("title + turns.text", "\n").value(row)                               # the title and each turn
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_ABSENT = object()


class Columns:
    """The columns that ``data.document_column``, ``data.summary_column`` or ``data.id_column`` name.

    A name that a row has as a whole is used as it is, so dots and plus signs in names of columns are allowed.

    Args:
        spec: The option's value: a name, a dotted path into nested values, or several of them joined by ``+``.
        join: What stands between the texts.
    """

    def __init__(self, spec: str, join: str = "\n") -> None:
        self.spec, self.join = spec, join
        self.parts = tuple(part.strip() for part in spec.split("+") if part.strip()) or (spec,)

    def value(self, row: Mapping[str, Any]) -> Any:
        """Return the value in a row: the cell itself, or the joined text of several.

        Raises:
            KeyError: The row lacks a column or a nested name.
        """
        if self.spec in row:
            return row[self.spec]
        values = [_walk(row, part) for part in self.parts]
        if len(values) == 1:
            return values[0]
        # An empty part, such as a missing title, leaves no separator.
        texts = [text for value in values for text in (value if isinstance(value, list) else [value])]
        odd = [text for text in texts if text is not None and not isinstance(text, str)]
        return odd[0] if odd else self.join.join(text for text in texts if text is not None and text.strip())

    def tops(self, names: Sequence[str]) -> list[str]:
        """Return the columns of a table that hold the values; those that the table lacks are left out.

        Args:
            names: All columns of the table.
        """
        if self.spec in names:
            return [self.spec]
        return list(dict.fromkeys(top for part in self.parts if (top := top_of(part, names)) is not None))

    def are_in(self, names: Sequence[str]) -> bool:
        """Return whether a table with these columns has all that the values need, apart from nested names."""
        return self.spec in names or all(top_of(part, names) is not None for part in self.parts)

    @property
    def is_nested_or_joined(self) -> bool:
        """Whether the spec may be more than the name of one column."""
        return "." in self.spec or len(self.parts) > 1


def top_of(path: str, names: Iterable[str]) -> str | None:
    """Return the column that a dotted path begins with: the longest one, or None."""
    found = [name for name in names if path == name or path.startswith(f"{name}.")]
    return max(found, key=len, default=None)


def nested_names(row: Mapping[str, Any]) -> list[str]:
    """Return the columns of a row as they can be requested: ``translation.de`` for the key of an object."""
    names: list[str] = []
    for name, value in row.items():
        first = value[0] if isinstance(value, list) and value else value
        names += [f"{name}.{key}" for key in first] if isinstance(first, dict) and first else [name]
    return names


def _walk(row: Mapping[str, Any], path: str) -> Any:
    top = top_of(path, row)
    if top is None:
        raise KeyError(path)
    value: Any = row[top]
    keys = path[len(top) + 1 :].split(".") if path != top else []
    for key in keys:
        value = _inner(value, key)
        if value is _ABSENT:
            raise KeyError(path)
    return value


def _inner(value: Any, key: str) -> Any:
    if isinstance(value, dict):
        return value.get(key, _ABSENT)
    if isinstance(value, list):
        if key.isdecimal():
            return value[int(key)] if int(key) < len(value) else None
        found = [one for item in value if (one := _inner(item, key)) is not _ABSENT]
        if value and not found:
            return _ABSENT
        return [text for one in found for text in (one if isinstance(one, list) else [one])]
    return None if value is None else _ABSENT
