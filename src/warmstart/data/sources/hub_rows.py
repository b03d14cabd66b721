"""The rows of a split that ``datasets`` memory-maps, as examples."""

import hashlib
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np

from warmstart.data.sources.base import Example, LazyRows
from warmstart.data.sources.columns import Columns, top_of
from warmstart.data.sources.parquet import text_lengths
from warmstart.data.sources.unique_ids import renamed

SHORT_BYTES = 64  # only texts shorter than this are checked for being blank
_PREFIX_BYTES = 128


class TextColumn:
    """One or several columns of a split that make one text.

    Args:
        spec: The option's value, as ``Columns`` reads it.
        join: ``data.join``.
        rows: The split, a ``datasets.Dataset``.
        is_id: Whether numbers are allowed.
    """

    def __init__(self, spec: str, join: str, rows: Any, *, is_id: bool = False) -> None:
        from pyarrow import types

        self.columns = Columns(spec, join)
        self._join, self._rows = join, rows
        names = rows.column_names
        self.tops = self.columns.tops(names)
        paths = [spec] if spec in names else self.columns.parts
        found = [_leaf(rows.data, path, names) for path in paths]
        self.is_there = all(leaf is not None for leaf in found)
        """Whether the split has all columns and nested names."""
        self._leaves = [leaf for leaf in found if leaf is not None]
        leaf_types = [kind for _, kind, _ in self._leaves]
        texts = [_item(kind) for kind in leaf_types]
        odd = [
            str(kind)
            for kind, item in zip(leaf_types, texts, strict=True)
            if not (types.is_string(item) or types.is_large_string(item) or (is_id and types.is_primitive(kind)))
        ]
        self.other_type = odd[0] if odd else None
        """The type of the first column that does not hold text; None if all do."""

    @property
    def cells(self) -> Any:
        """The texts as an Arrow array if they are those of a single column, else None."""
        if len(self._leaves) != 1 or self._leaves[0][0] is None or _item(self._leaves[0][1]) is not self._leaves[0][1]:
            return None
        return self._leaves[0][0]

    def text(self, row: dict[str, Any]) -> str:
        """Return the text of a row."""
        value = self.columns.value(row)
        if isinstance(value, list):
            return self._join.join(item for item in value if item is not None)
        return "" if value is None else str(value)

    def empty_rows(self) -> set[int]:
        """Return the indices of the rows without text.

        Only short texts are read: reading all of them would take longer than everything else.
        """
        short: Any = range(len(self._rows))
        if all(array is not None for array, _, _ in self._leaves):
            lengths = sum(
                np.concatenate([text_lengths(chunk) for chunk in array.chunks] or [np.zeros(0, dtype=np.int64)])
                for array, _, _ in self._leaves
            )
            short = np.flatnonzero(lengths < SHORT_BYTES).tolist()
        if (cells := self.cells) is not None:
            return {i for i in short if not (cells[i].as_py() or "").strip()}
        narrow = self._rows.select_columns(self.tops)
        return {i for i in short if not self.text(narrow[i]).strip()}


class HubRows(LazyRows):
    """A split of a ``datasets`` data set as examples.

    Args:
        rows: The split, a ``datasets.Dataset``.
        kept: Indices of the rows to keep.
        document: The documents.
        summary: The summaries.
        identifier: The ids; None uses the row numbers. A repeated id gets its row number, see ``renamed``.
    """

    def __init__(
        self, rows: Any, kept: np.ndarray, document: TextColumn, summary: TextColumn, identifier: TextColumn | None
    ) -> None:
        self.kept, self.document, self._summary, self._identifier = kept, document, summary, identifier
        self._all = rows
        self._rows = rows.select_columns(list(dict.fromkeys(top for one in self._used() for top in one.tops)))

    def _used(self) -> Iterator[TextColumn]:
        yield self.document
        yield self._summary
        if self._identifier is not None:
            yield self._identifier

    def __len__(self) -> int:
        return len(self.kept)

    def _read(self, index: int) -> Example:
        number = int(self.kept[index])
        row = self._rows[number]
        name = self._identifier.text(row) if self._identifier is not None else str(number)
        return Example(self._renamed.get(number, name), self.document.text(row), self._summary.text(row))

    @cached_property
    def _renamed(self) -> dict[int, str]:
        """New ids, by row number, of the rows that repeat the id of an earlier row of this split."""
        if self._identifier is None:
            return {}
        numbers: list[int] = self.kept.tolist()
        if (cells := self._identifier.cells) is None:
            narrow = self._rows.select_columns(list(self._identifier.tops))
            return renamed([self._identifier.text(narrow[number]) for number in numbers], numbers)
        cells = cells.take(self.kept)
        if cells.null_count == 0 and len(cells.unique()) == len(cells):
            return {}
        return renamed(["" if cell is None else str(cell) for cell in cells.to_pylist()], numbers)

    def only(self, chosen: np.ndarray) -> "HubRows":
        """Return the rows that a mask chooses."""
        return HubRows(self._all, self.kept[chosen], self.document, self._summary, self._identifier)

    @property
    def content(self) -> str:
        """A hash of the rows, computed from the Arrow buffers without decoding them."""
        digest = hashlib.sha256(self.kept.tobytes())
        for batch in self._rows.data.select(self._rows.column_names).to_batches():
            digest.update(batch.serialize())
        used = [(one.columns.spec, one.columns.join) for one in self._used()]
        if any(one.columns.is_nested_or_joined for one in self._used()) or any(join != "\n" for _, join in used):
            digest.update(repr(used).encode())
        return digest.hexdigest()

    def shared_documents(self, train: "HubRows") -> int | None:
        """Count the documents that are also in ``train``; None if they are not single columns."""
        from pyarrow import compute

        ours, theirs = self.document.cells, train.document.cells
        if ours is None or theirs is None:
            return None

        def prefixes(cells: Any) -> Any:
            return compute.binary_slice(cells.cast("large_binary"), 0, _PREFIX_BYTES)

        # Equal beginnings are candidates, as only they need the texts to be read.
        candidates = compute.is_in(prefixes(theirs), value_set=prefixes(ours).unique()).to_numpy()
        of_train = np.zeros(len(theirs), dtype=bool)
        of_train[train.kept] = True
        seen = set(theirs.take(np.flatnonzero(candidates & of_train)).to_pylist())
        return sum(text in seen for text in ours.take(self.kept).to_pylist()) if seen else 0


def _item(kind: Any) -> Any:
    from pyarrow import types

    return kind.value_type if types.is_list(kind) or types.is_large_list(kind) else kind


def _leaf(table: Any, path: str, names: list[str]) -> tuple[Any, Any, str] | None:
    """Return the array, the type and the path of a column or a nested value; None if it is not there.

    The array is None if the path leads through a list, as it is then known only row by row.
    """
    import pyarrow
    from pyarrow import compute, types

    top = top_of(path, names)
    if top is None:
        return None
    array, kind = table.column(top), table.schema.field(top).type
    for key in path[len(top) + 1 :].split(".") if path != top else ():
        is_list = types.is_list(kind) or types.is_large_list(kind)
        if is_list and key.isdecimal():
            array, kind = None, kind.value_type
            continue
        inner = kind.value_type if is_list else kind
        if not types.is_struct(inner) or inner.get_field_index(key) < 0:
            return None
        of_key = inner.field(key).type
        if is_list:
            array, kind = None, of_key if _item(of_key) is not of_key else pyarrow.list_(of_key)
        else:
            array, kind = (None if array is None else compute.struct_field(array, [key])), of_key
    return array, kind, path
