"""Tokenize each split once, into memory-mapped arrays that later runs with the same settings reuse.

A cache folder contains ``source_ids.npy`` and ``target_ids.npy`` (the ids of all examples, concatenated, int32), their
offsets (int64), and ``meta.json``. Its name is a fingerprint of the texts, the tokenizers and the maximum lengths, so a
changed setting never finds a stale folder.

The tokenizers library runs its own Rust threads, so there is no pool of processes and nothing forks.
"""

import hashlib
import json
import logging
import os
import time
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from warmstart.atomic import naming, save_array
from warmstart.cache import cache_root
from warmstart.data.build_once import build_once
from warmstart.data.sources.base import Example
from warmstart.data.tokenization.pair import TokenizerPair
from warmstart.data.tokenization.source_layout import SourceLayout
from warmstart.errors import UserError

FORMAT_VERSION = 1
_TEXTS_AT_A_TIME, _CHARACTERS_AT_A_TIME = 1000, 2**23

_log = logging.getLogger(__name__)


class TokenizedSplit(Dataset[tuple[int, np.ndarray, np.ndarray]]):
    """Examples ``(index, source ids, target ids)`` of one cache folder."""

    def __init__(self, folder: str | Path) -> None:
        """Map the arrays of a cache folder.

        Raises:
            UserError: An array is missing or damaged.
        """
        self.folder = Path(folder)
        self._source, self._source_offsets = _ids_and_offsets(self.folder, "source")
        self._target, self._target_offsets = _ids_and_offsets(self.folder, "target")
        if len(self._source_offsets) != len(self._target_offsets):
            raise _damaged(self.folder, "sources and targets have different numbers of examples")

    def __len__(self) -> int:
        return len(self._source_offsets) - 1

    def __getitem__(self, index: int) -> tuple[int, np.ndarray, np.ndarray]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        source = self._source[self._source_offsets[index] : self._source_offsets[index + 1]]
        target = self._target[self._target_offsets[index] : self._target_offsets[index + 1]]
        return index, source, target

    def __reduce__(self) -> tuple[type["TokenizedSplit"], tuple[Path]]:
        # A pickled memory map is a copy of the whole file, so worker processes reopen the folder instead.
        return TokenizedSplit, (self.folder,)

    @property
    def source_lengths(self) -> np.ndarray:
        """Source tokens of each example (N,)."""
        return np.diff(self._source_offsets)

    @property
    def target_lengths(self) -> np.ndarray:
        """Label tokens of each example, including the end token (N,)."""
        return np.diff(self._target_offsets)

    @property
    def cut_sources(self) -> int | None:
        """Number of sources that were cut; None if that was not counted.

        Raises:
            UserError: The folder is damaged.
        """
        try:
            cut: int | None = json.loads((self.folder / "meta.json").read_text()).get("cut_sources")
        except (FileNotFoundError, ValueError, AttributeError) as error:
            raise _damaged(self.folder, f"meta.json: {error}") from error
        return cut


class ExchangedDocuments(Dataset[tuple[int, np.ndarray, np.ndarray]]):
    """A split in which example ``i`` has the document of example ``documents[i]``.

    Args:
        rows: The split.
        documents: A permutation of its indices (N,).
    """

    def __init__(self, rows: TokenizedSplit, documents: np.ndarray) -> None:
        self.rows, self.documents = rows, documents
        self.source_lengths, self.target_lengths = rows.source_lengths[documents], rows.target_lengths

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[int, np.ndarray, np.ndarray]:
        _, source, _ = self.rows[int(self.documents[index])]
        _, _, target = self.rows[index]
        return index, source, target


def tokenized_split(
    examples: Sequence[Example],
    tokenizers: TokenizerPair,
    *,
    name: str,
    texts_fingerprint: str,
    layout: SourceLayout,
    max_target_length: int,
    cache_dir: str | None = None,
    processes: int | None = None,
) -> TokenizedSplit:
    """Return a tokenized split from the cache; tokenize it first if it is missing.

    Args:
        examples: The texts.
        tokenizers: The pair of tokenizers.
        name: Name of the split, for the folder and the log.
        texts_fingerprint: Hash of the texts.
        layout: Which tokens of a source are read.
        max_target_length: Maximum tokens of a target, including the end token.
        cache_dir: Folder of caches, see ``warmstart.cache.cache_root``.
        processes: Maximum number of threads. The tokenizers library starts its threads once per process, so only the
            value of the first call has an effect, except that 1 always means one thread.

    Raises:
        UserError: A cached array is missing or damaged.
    """
    about = {
        "format_version": FORMAT_VERSION,
        "texts": texts_fingerprint,
        "tokenizers": tokenizers.fingerprint(),
        **layout.fingerprint(),
        "max_target_length": max_target_length,
    }
    fingerprint = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:20]

    tokenized = False

    def build(folder: Path) -> None:
        nonlocal tokenized
        tokenized = True
        _set_threads(processes)
        began = time.perf_counter()
        cut = _write(folder, examples, tokenizers, layout, max_target_length)
        meta = {**about, "examples": len(examples)} | ({} if cut is None else {"cut_sources": cut})
        (folder / "meta.json").write_text(json.dumps(meta, indent=2) + "\n")
        _log.info("tokenized %d %s examples in %.1f s", len(examples), name, time.perf_counter() - began)

    split = TokenizedSplit(build_once(cache_root(cache_dir) / "tokens" / f"{name}-{fingerprint}", build))
    if not tokenized:
        _log.info("read %d %s examples from the token cache: %s", len(split), name, split.folder)
    return split


def _write(
    folder: Path, examples: Sequence[Example], tokenizers: TokenizerPair, layout: SourceLayout, max_target_length: int
) -> int | None:
    """Write the ids; return how many sources were cut, None if the layout does not count them."""
    counts: list[int | None] = []
    with _RowsWriter(folder, "source") as sources, _RowsWriter(folder, "target") as targets:
        for chunk in _chunks(examples):
            rows, cut = layout.encode_and_count(tokenizers, [example.document for example in chunk])
            sources.append(rows)
            counts.append(cut)
            targets.append(tokenizers.encode_labels(chunk, rows, max_target_length))
    return None if None in counts else sum(count or 0 for count in counts)


def _chunks(examples: Sequence[Example]) -> Iterator[list[Example]]:
    """Yield the examples to tokenize in one call: few, as a call needs about forty times the memory of the texts."""
    chunk: list[Example] = []
    characters = 0
    for example in examples:
        chunk.append(example)
        characters += len(example.document) + len(example.summary)
        if len(chunk) == _TEXTS_AT_A_TIME or characters > _CHARACTERS_AT_A_TIME:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


class _RowsWriter:
    """Appends ids to a .npy file and rewrites its header with the final length on exit."""

    def __init__(self, folder: Path, name: str) -> None:
        self._path, self._offsets_path = _paths(folder, name)
        self._offsets = array("q", [0])

    def __enter__(self) -> "_RowsWriter":
        self._file = self._path.open("wb")
        self._header_size = self._write_header()
        return self

    def append(self, rows: list[list[int]]) -> None:
        for row in rows:
            self._offsets.append(self._offsets[-1] + len(row))
        with naming(self._path):
            self._file.write(np.fromiter((token for row in rows for token in row), dtype="<i4").tobytes())

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: TracebackType | None) -> None:
        self._file.seek(0)
        # numpy pads the header so that the length can grow.
        assert self._write_header() == self._header_size
        self._file.close()
        save_array(self._offsets_path, np.frombuffer(self._offsets, dtype=np.int64))

    def _write_header(self) -> int:
        header = {"descr": "<i4", "fortran_order": False, "shape": (self._offsets[-1],)}
        np.lib.format.write_array_header_1_0(self._file, header)
        return self._file.tell()


def _ids_and_offsets(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    ids, offsets = _paths(folder, name)
    # The offsets are small and read for every row; the ids stay on disk.
    try:
        mapped, read = np.load(ids, mmap_mode="r"), np.load(offsets)
    except (FileNotFoundError, ValueError, EOFError) as error:
        raise _damaged(folder, " ".join(str(error).split())) from error
    if mapped.ndim != 1 or read.ndim != 1 or read[-1:].tolist() != [len(mapped)]:
        raise _damaged(folder, f"{offsets.name} does not match {ids.name}")
    return mapped, read


def _damaged(folder: Path, reason: str) -> UserError:
    return UserError(
        f"The token cache {folder} is damaged ({reason}). Delete the folder; the same command rebuilds it."
    )


def _paths(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f"{name}_ids.npy", folder / f"{name}_offsets.npy"


def _set_threads(processes: int | None) -> None:
    if processes is not None and processes > 1:
        os.environ.setdefault("RAYON_NUM_THREADS", str(processes))
    # Set explicitly; otherwise the library warns at every later fork, such as that of a loader's worker.
    os.environ["TOKENIZERS_PARALLELISM"] = "false" if processes == 1 else "true"
