"""Checked rows of the user's files on disk, with an index in memory: 8 bytes a row, however long the texts are.

A folder of the cache holds ``rows.jsonl`` (id, document, summary), where each row begins in it, the numbers by which
validation and test are split off, and what was read and skipped. Its name is a fingerprint of the file's contents and
of the options that read it.
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
    """Rows of a store, all or those that are chosen; each is read from disk when it is asked for."""

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
        # Not a memory map: its pages would count as this process's memory.
        return Example(*json.loads(os.pread(self._file.fileno(), end - begin, begin)))

    @property
    def content(self) -> str:
        """The same exactly when the rows are."""
        return f"{self.folder.name} {hashlib.sha256(self.chosen.tobytes()).hexdigest()}"

    def places(self, split: str) -> np.ndarray:
        """A number for each row from 0 to 2**64 by a hash of its document: the lowest go to ``split``."""
        return np.load(self.folder / "places.npy")[self.chosen, SPLIT_OFF.index(split)]

    def only(self, rows: np.ndarray) -> "StoredRows":
        """Some of these rows."""
        return StoredRows(self.folder, self.chosen[rows])


def write_rows(folder: Path, rows: Iterable[tuple[str, Example | None]], bad: BadRows, *, unique_ids: bool) -> None:
    """Fill a store's folder. ``rows`` gives where each row stands and the row, or None where ``bad`` has taken note.

    With ``unique_ids`` (of rows that stand at "line 7" or "row 7") the second row of an id is a bad one.
    """
    offsets, places, hashes, positions = array("q", [0]), array("Q"), array("Q"), array("q")
    read, place = 0, "row 0"
    with (folder / "rows.jsonl").open("wb") as file:
        for place, example in rows:
            read += 1
            if example is None:
                continue
            line = json.dumps(list(example), ensure_ascii=False).encode() + b"\n"
            file.write(line)
            offsets.append(offsets[-1] + len(line))
            places.extend(_hash64(f"{split}\0{example.document}") for split in SPLIT_OFF)
            if unique_ids:
                hashes.append(_hash64(example.id))
                positions.append(int(place.split()[1]))
    save_array(folder / "offsets.npy", np.frombuffer(offsets, dtype=np.int64))
    save_array(folder / "places.npy", np.frombuffer(places, dtype=np.uint64).reshape(-1, 2))
    kept = np.arange(len(offsets) - 1)
    if unique_ids:
        twice = _repeated(StoredRows(folder), np.frombuffer(hashes, dtype=np.uint64))
        for row, first in twice.items():
            unit = place.split()[0]
            bad.found(
                "duplicate_id",
                f"{unit} {positions[row]}",
                f"has an id that stands in {unit} {positions[first]} already",
            )
        kept = np.delete(kept, list(twice))
    save_array(folder / "kept.npy", kept)
    about = {"read": read, "counts": dict(bad.counts), "examples": bad.examples}
    (folder / "about.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def open_rows(folder: Path, bad: BadRows) -> tuple[StoredRows, dict[str, int]]:
    """The usable rows of a store, and its counts; ``bad`` is told again what was found when it was written."""
    about: dict[str, Any] = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    bad.counts.clear()
    bad.counts.update(about["counts"])
    bad.examples = about["examples"]
    return StoredRows(folder, np.load(folder / "kept.npy")), bad.report(about["read"])


def _repeated(rows: StoredRows, hashes: np.ndarray) -> dict[int, int]:
    """Rows whose id an earlier row has, and that row."""
    values, times = np.unique(hashes, return_counts=True)
    first: dict[str, int] = {}
    found: dict[int, int] = {}
    # Equal hashes are candidates; the ids themselves decide.
    for row in np.flatnonzero(np.isin(hashes, values[times > 1])).tolist():
        earlier = first.setdefault(rows[row].id, row)
        if earlier != row:
            found[row] = earlier
    return found


def _hash64(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
