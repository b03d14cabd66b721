"""On-disk store of the checked rows of the user's files; memory holds only an index of 8 bytes per row.

A cache folder contains ``rows.jsonl`` (id, document, summary), the byte offset of each row, the hashes that split off
validation and test, and the counts of rows read and skipped. The folder's name is a fingerprint of the file's contents
and of the options that affect reading.
"""

import hashlib
import json
import os
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from warmstart.atomic import save_array
from warmstart.data.sources.bad_rows import BadRows
from warmstart.data.sources.base import Example, LazyRows

FORMAT_VERSION = 2
SPLIT_OFF = ("validation", "test")


class StoredRows(LazyRows):
    """Rows of a store, read from disk on access.

    Args:
        folder: The folder of the store.
        chosen: Row numbers to keep, in order; None keeps all.
    """

    def __init__(self, folder: Path, chosen: np.ndarray | None = None) -> None:
        self.folder = folder
        self._offsets = np.load(folder / "offsets.npy")
        self.chosen = np.arange(len(self._offsets) - 1) if chosen is None else chosen
        self._file = (folder / "rows.jsonl").open("rb")

    def __len__(self) -> int:
        return len(self.chosen)

    def _read(self, index: int) -> Example:
        row = int(self.chosen[index])
        begin, end = int(self._offsets[row]), int(self._offsets[row + 1])
        # Not a memory map, whose pages would count as this process's memory.
        return Example(*json.loads(os.pread(self._file.fileno(), end - begin, begin)))

    @property
    def content(self) -> str:
        """A hash of the rows: equal if and only if they are."""
        return f"{self.folder.name} {hashlib.sha256(self.chosen.tobytes()).hexdigest()}"

    def split_hashes(self, split: str) -> np.ndarray:
        """Return a 64-bit hash of each row's document, salted with ``split``: the lowest go to that split."""
        hashes: np.ndarray = np.load(self.folder / "places.npy")[self.chosen, SPLIT_OFF.index(split)]
        return hashes

    def only(self, rows: np.ndarray) -> "StoredRows":
        """Return the rows at the given indices."""
        return StoredRows(self.folder, self.chosen[rows])


def write_rows(folder: Path, rows: Iterable[tuple[str, Example | None]], bad: BadRows, *, unique_ids: bool) -> None:
    """Fill the folder of a store.

    Args:
        folder: An empty folder.
        rows: Location and example of each row; None in place of a row that ``bad`` has recorded.
        bad: Collects the unusable rows.
        unique_ids: Whether a repeated id makes a row unusable. Locations must then be like "line 7" or
            "row 7 of 'part-1.csv'".
    """
    offsets, split_hashes, id_hashes, positions = array("q", [0]), array("Q"), array("Q"), array("q")
    shards: dict[str, int] = {}
    shard_of = array("q")
    read, where = 0, "row 0"
    with (folder / "rows.jsonl").open("wb") as file:
        for where, example in rows:
            read += 1
            if example is None:
                continue
            line = json.dumps(list(example), ensure_ascii=False).encode() + b"\n"
            file.write(line)
            offsets.append(offsets[-1] + len(line))
            split_hashes.extend(hash64(f"{split}\0{example.document}") for split in SPLIT_OFF)
            if unique_ids:
                id_hashes.append(hash64(example.id))
                _, number, *shard = where.split(" ", 2)
                positions.append(int(number))
                shard_of.append(shards.setdefault(" ".join(["", *shard]), len(shards)))
    save_array(folder / "offsets.npy", np.frombuffer(offsets, dtype=np.int64))
    save_array(folder / "places.npy", np.frombuffer(split_hashes, dtype=np.uint64).reshape(-1, 2))
    kept = np.arange(len(offsets) - 1)
    if unique_ids:
        twice = _repeated(StoredRows(folder), np.frombuffer(id_hashes, dtype=np.uint64))
        unit, of = where.split()[0], list(shards)

        def location(row: int) -> str:
            return f"{unit} {positions[row]}{of[shard_of[row]].rstrip()}"

        for row, first in twice.items():
            bad.found("duplicate_id", location(row), f"repeats the id of {location(first)}")
        kept = np.delete(kept, list(twice))
    save_array(folder / "kept.npy", kept)
    about = {"read": read, "counts": dict(bad.counts), "examples": bad.examples}
    (folder / "about.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def open_rows(folder: Path, bad: BadRows) -> tuple[StoredRows, dict[str, int]]:
    """Open a store.

    Args:
        folder: The folder of the store.
        bad: Filled with the unusable rows that were recorded when the store was written.

    Returns:
        The usable rows, and the counts of ``BadRows.report``.
    """
    about: dict[str, Any] = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    bad.counts.clear()
    bad.counts.update(about["counts"])
    bad.examples = about["examples"]
    return StoredRows(folder, np.load(folder / "kept.npy")), bad.report(about["read"])


def _repeated(rows: StoredRows, hashes: np.ndarray) -> dict[int, int]:
    """Map each row that repeats an id to the first row with that id."""
    values, times = np.unique(hashes, return_counts=True)
    first: dict[str, int] = {}
    found: dict[int, int] = {}
    # Equal hashes are candidates; the ids themselves decide.
    for row in np.flatnonzero(np.isin(hashes, values[times > 1])).tolist():
        earlier = first.setdefault(rows[row].id, row)
        if earlier != row:
            found[row] = earlier
    return found


def hash64(text: str) -> int:
    """Return 64 bits of the SHA-256 of a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
