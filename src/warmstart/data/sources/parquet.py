"""Stream the rows of a parquet file in bounded memory, whatever sizes the file's metadata claims.

A page's header states its unpacked size, and a value is never longer than its page or dictionary. All page headers are
checked before Arrow reads a page. Because a million rows may refer to one long text in a dictionary, the lengths of
rows are computed before their texts are built.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from warmstart.data.sources.bad_rows import MAX_ROW_BYTES, BadText, too_long
from warmstart.data.sources.columns import Columns
from warmstart.errors import UserError, listed, says_nothing_of_the_file

MAX_EXPANSION, FREE_BYTES = 100, 64 * 2**20
"""A file of n bytes may unpack to 100 n bytes and 64 MiB. Text unpacks to about 3 n, a decompression bomb to 1000 n."""
MAX_PAGE_BYTES = 128 * 2**20
"""Largest page in bytes that is unpacked. Common writers use 1 MiB."""
BYTES_OF_A_VALUE = 16
"""Minimum size counted for each value, nulls included, as Arrow allocates that much."""
_ROWS = 64
_MAX_HEADER = 16 * 2**20
_DELTA = frozenset({6, 7})  # DELTA_LENGTH_BYTE_ARRAY, DELTA_BYTE_ARRAY


class Pages(NamedTuple):
    """Unpacked sizes of the pages of some columns."""

    bytes: int
    """Of all pages together, with ``BYTES_OF_A_VALUE`` for each value."""
    largest: int
    """Bytes of the largest page."""
    delta: bool
    """Whether a page has a DELTA encoding of byte arrays."""


class TooLarge(Exception):
    """A file unpacks to more than the limit; the message says how."""


def parquet_rows(path: Path, named: str, wanted: Sequence[Columns]) -> Iterator[tuple[str, dict[str, Any] | BadText]]:
    """Yield the location ("row 7") and the content of each row.

    If a wanted column is missing, a single row is yielded that has all columns of the file, with None as values.

    Args:
        path: The file.
        named: The option and path as the user gave them, for messages.
        wanted: The columns to read; empty reads all.

    Raises:
        UserError: The file is damaged, a column does not hold text, or the file unpacks to too much.
    """
    import pyarrow

    number = 0
    try:
        for row in _rows(path, named, wanted):
            number += 1
            yield f"row {number}", row
    except TooLarge as error:
        raise UserError(f"{named} {error}") from None
    # A damaged file may raise any of these; some of pyarrow's own errors are OSError or ValueError.
    except (
        *(pyarrow.ArrowException, OSError, ValueError, TypeError, KeyError),
        *(IndexError, OverflowError, RecursionError, MemoryError),
    ) as error:
        if isinstance(error, OSError) and says_nothing_of_the_file(error):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UserError(f"{named} is not a readable parquet file: {reason}. Write it again.") from error


def _rows(path: Path, named: str, wanted: Sequence[Columns]) -> Iterator[dict[str, Any] | BadText]:
    import pyarrow.parquet

    size = path.stat().st_size
    bound = MAX_EXPANSION * size + FREE_BYTES
    # No list or string of the footer can be longer than the file. Without a buffer a row group is held whole.
    limits = {"thrift_string_size_limit": size, "thrift_container_size_limit": size}
    reading: dict[str, Any] = {"pre_buffer": False, "buffer_size": 2**16, **limits}
    with pyarrow.parquet.ParquetFile(path, **reading) as file:
        names = file.schema_arrow.names
        if not all(one.are_in(names) for one in wanted):
            if file.metadata.num_rows:
                yield dict.fromkeys(with_nested(file.schema_arrow))
            return
        columns = list(dict.fromkeys(top for one in wanted for top in one.tops(names))) or names
        for name in columns:
            if names.count(name) > 1 and wanted:
                raise UserError(f"{named} has two columns named {name}. Rename one of them.")
        nested = [name for name in columns if _holds_list(_checked(file.schema_arrow.field(name), named, wanted))]
        paths = [file.metadata.schema.column(i).path for i in range(file.metadata.num_columns)]
        leaves = {i: p for i, p in enumerate(paths) if any(p == n or p.startswith(f"{n}.") for n in columns)}
        with path.open("rb") as opened:
            pages = _pages(opened, file.metadata, list(leaves), bound)
        # Arrow cannot keep a dictionary for these encodings, and a DELTA_BYTE_ARRAY page may hold lists of any length.
        if nested and pages.delta:
            raise TooLarge(
                f"holds lists in a DELTA encoding, whose length is known only after unpacking. Write the column "
                f"{nested[0]} in another encoding."
            )
    in_lists = [p for p in leaves.values() if any(p.startswith(f"{name}.") for name in nested)]
    unpacked = 0
    with pyarrow.parquet.ParquetFile(path, read_dictionary=in_lists, **reading) as file:
        batch_size = max(1, min(_ROWS, MAX_ROW_BYTES // max(pages.largest, 1)))
        for batch in file.iter_batches(batch_size, columns=columns, use_threads=False):
            lengths = np.zeros(batch.num_rows, dtype=np.int64)
            for column in batch.columns:
                lengths += text_lengths(column)
            unpacked += int(lengths.sum()) + BYTES_OF_A_VALUE * batch.num_rows
            _check(unpacked, bound)
            yield from _rows_of(batch, lengths)


def _checked(field: Any, named: str, wanted: Sequence[Columns]) -> Any:
    """Return the type of a column, or raise a UserError if it can hold neither texts nor ids."""
    from pyarrow import types

    structure = _structure(field.type)
    if structure is not None and any(one.spec == field.name for one in wanted):
        keys = listed(f"{field.name}.{inner.name}" for inner in structure)
        raise UserError(
            f"{named}: the column {field.name} holds {str(field.type)[:60]}, not text. Request one of its fields: "
            f"{keys}."
        )
    # Numbers may be ids, and a structure may hold some next to its texts.
    numbers = not (_is_list(field.type) or types.is_dictionary(field.type)) or structure is not None
    for inner in _leaf_types(field.type):
        text = types.is_string(inner) or types.is_large_string(inner) or types.is_string_view(inner)
        is_deep = structure is None and _is_list(field.type) and _is_list(field.type.value_type)
        if is_deep or not (text or (numbers and (types.is_primitive(inner) or types.is_null(inner)))):
            raise UserError(
                f"{named}: the column {field.name} holds {str(field.type)[:60]}, not text. Write texts, or lists of "
                "lines, into it."
            )
    return field.type


def _leaf_types(kind: Any) -> Iterator[Any]:
    from pyarrow import types

    if types.is_struct(kind):
        for field in kind:
            yield from _leaf_types(field.type)
    elif _is_list(kind):
        yield from _leaf_types(kind.value_type)
    else:
        yield kind.value_type if types.is_dictionary(kind) else kind


def _holds_list(kind: Any) -> bool:
    from pyarrow import types

    return _is_list(kind) or (types.is_struct(kind) and any(_holds_list(field.type) for field in kind))


def _structure(kind: Any) -> Any:
    """Return the structure that a column, or each item of its lists, is; None for any other type."""
    from pyarrow import types

    inner = kind.value_type if _is_list(kind) else kind
    return inner if types.is_struct(inner) else None


def with_nested(schema: Any) -> list[str]:
    """Return the columns of an Arrow schema as they can be requested, such as ``translation.de``."""
    names = []
    for field in schema:
        structure = _structure(field.type)
        names += [f"{field.name}.{inner.name}" for inner in structure or ()] or [field.name]
    return names


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind))


def text_lengths(column: Any) -> Any:
    """Return the bytes of each row's text without building the texts."""
    import pyarrow
    from pyarrow import compute, types

    if types.is_struct(column.type):
        return sum(
            (text_lengths(column.field(i)) for i in range(column.type.num_fields)),
            np.zeros(len(column), dtype=np.int64),
        )
    if _is_list(column.type):
        ends = np.concatenate([[0], np.cumsum(text_lengths(column.values), dtype=np.int64)])
        offsets = column.offsets.to_numpy()
        return ends[offsets[1:]] - ends[offsets[:-1]]
    if types.is_dictionary(column.type):
        each = text_lengths(column.dictionary)
        indices = column.indices
        found = (
            each[compute.fill_null(indices, 0).to_numpy(zero_copy_only=False)] if len(each) else np.zeros(len(indices))
        )
        return np.where(indices.is_valid().to_numpy(zero_copy_only=False), found, 0).astype(np.int64)
    if types.is_primitive(column.type) or types.is_null(column.type):
        return np.zeros(len(column), dtype=np.int64)
    if types.is_string_view(column.type):
        column = column.cast(pyarrow.large_string())
    return compute.fill_null(compute.binary_length(column), 0).to_numpy(zero_copy_only=False).astype(np.int64)


def _rows_of(batch: Any, lengths: Any) -> Iterator[dict[str, Any] | BadText]:
    for i, length in enumerate(lengths.tolist()):
        if length > MAX_ROW_BYTES:
            yield too_long()
            continue
        try:
            yield batch.slice(i, 1).to_pylist()[0]
        except UnicodeDecodeError:
            yield BadText("not_utf8", "holds bytes that are not UTF-8")


def _check(unpacked: int, bound: int) -> None:
    if unpacked > bound:
        raise TooLarge(
            f"unpacks to more than {MAX_EXPANSION} times its size, far more than text does. If the file is valid, "
            "write it without compression."
        )


def _pages(file: BinaryIO, metadata: Any, columns: Sequence[int], bound: int) -> Pages:
    """Read the headers of all pages of some columns; the sums in the footer are not trusted.

    Raises:
        TooLarge: One page, or all pages together, unpack to too much.
        ValueError: A header is damaged.
    """
    total = largest = 0
    delta = False
    for group in range(metadata.num_row_groups):
        for index in columns:
            column = metadata.row_group(group).column(index)
            at = column.data_page_offset
            if column.has_dictionary_page and 0 < column.dictionary_page_offset < at:
                at = column.dictionary_page_offset
            end = at + column.total_compressed_size
            while at < end:
                header, begin = _header(file, at)
                # The headers of a data page, a dictionary page and a data page of version 2.
                of_values = [header[field] for field in (5, 7, 8) if isinstance(header.get(field), dict)]
                values = sum(_number(fields, 1) for fields in of_values)
                delta |= any(not _DELTA.isdisjoint((fields.get(2), fields.get(4))) for fields in of_values)
                unpacked = _number(header, 2) + BYTES_OF_A_VALUE * values
                if unpacked > MAX_PAGE_BYTES:
                    raise TooLarge(
                        f"has a page of {unpacked / 2**20:.0f} MiB; the limit is {MAX_PAGE_BYTES // 2**20} MiB. Write "
                        "the file again with smaller pages, for example with pyarrow or pandas."
                    )
                largest, total = max(largest, _number(header, 2)), total + unpacked
                _check(total, bound)
                at = begin + _number(header, 3)
    return Pages(total, largest, delta)


def _number(fields: dict[int, Any], name: int) -> int:
    number = fields.get(name, 0)
    if not isinstance(number, int) or number < 0:
        raise ValueError("the header of a page is damaged")
    return number


def _header(file: BinaryIO, at: int) -> tuple[dict[int, Any], int]:
    """Return the header of the page at offset ``at``, by field number, and the offset of its end."""
    length = 1024
    while True:
        file.seek(at)
        data = file.read(length)
        try:
            fields, used = _struct(data, 0)
            return fields, at + used
        except IndexError:  # a header with long statistics
            if len(data) < length or length >= _MAX_HEADER:
                raise ValueError("the header of a page is damaged") from None
            length *= 8


def _struct(data: bytes, at: int) -> tuple[dict[int, Any], int]:
    """Parse a struct in Thrift's compact protocol: only the field types that parquet's PageHeader has."""
    found: dict[int, Any] = {}
    name = 0
    while kind := data[at]:
        at += 1
        if kind >> 4:
            name += kind >> 4
        else:
            name, at = _signed(data, at)
        kind &= 15
        if kind in (4, 5, 6):  # i16, i32, i64
            number, at = _signed(data, at)
            # Of a repeated field Arrow uses the last value; the largest one is the safe bound.
            found[name] = max(number, found.get(name, number)) if not isinstance(found.get(name), dict) else number
        elif kind == 12:
            found[name], at = _struct(data, at)
        elif kind == 8:  # bytes
            length, at = _varint(data, at)
            at += length
        elif kind == 7:  # double
            at += 8
        elif kind == 3:
            at += 1
        elif kind not in (1, 2):  # true and false hold their value in the kind
            raise ValueError("the header of a page is damaged")
    return found, at + 1


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return number, at
        if shift > 63:
            raise ValueError("the header of a page is damaged")


def _signed(data: bytes, at: int) -> tuple[int, int]:
    number, at = _varint(data, at)
    return (number >> 1) ^ -(number & 1), at
