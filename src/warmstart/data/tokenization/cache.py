"""Tokenize each split once, into memory-mapped arrays that every later run with the same choices reads again.

A folder of the cache holds ``source_ids.npy`` and ``target_ids.npy`` (all rows of ids on end, int32), their offsets
(int64), and ``meta.json``. Its name is a fingerprint of the texts, the tokenizers and the lengths: a changed choice
finds another folder, never a stale one.

Tokenizing is parallel in the tokenizers' own Rust threads. On the 3,824 news articles and 2 cores: 6.0 s with one
thread, 3.5 s with two, 3.6 s in a pool of two processes. So there is no pool, and nothing forks.
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
from warmstart.data.sources.base import Example
from warmstart.data.tokenization.build_once import build_once
from warmstart.data.tokenization.pair import TokenizerPair
from warmstart.errors import UserError

FORMAT_VERSION = 1
_TEXTS_AT_A_TIME, _CHARACTERS_AT_A_TIME = 1000, 2**23

_log = logging.getLogger(__name__)


class TokenizedSplit(Dataset):
    """Rows ``(index, source ids, target ids)`` of one folder of the cache."""

    def __init__(self, folder: str | Path) -> None:
        """Map the arrays of ``folder``.

        Raises:
            UserError: one of them is gone or damaged.
        """
        self.folder = Path(folder)
        self._source, self._source_offsets = _ids_and_offsets(self.folder, "source")
        self._target, self._target_offsets = _ids_and_offsets(self.folder, "target")
        if len(self._source_offsets) != len(self._target_offsets):
            raise _damaged(self.folder, "sources and targets are not of the same rows")

    def __len__(self) -> int:
        return len(self._source_offsets) - 1

    def __getitem__(self, index: int) -> tuple[int, np.ndarray, np.ndarray]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        source = self._source[self._source_offsets[index] : self._source_offsets[index + 1]]
        target = self._target[self._target_offsets[index] : self._target_offsets[index + 1]]
        return index, source, target

    def __reduce__(self) -> tuple[type["TokenizedSplit"], tuple[Path]]:
        # A pickled memory map is a copy of the whole file: worker processes open the folder anew instead.
        return TokenizedSplit, (self.folder,)

    @property
    def source_lengths(self) -> np.ndarray:
        """Source tokens of each row."""
        return np.diff(self._source_offsets)

    @property
    def target_lengths(self) -> np.ndarray:
        """Label tokens of each row, the end token included."""
        return np.diff(self._target_offsets)


class ExchangedDocuments(Dataset):
    """The same rows, of which ``i`` is given the document of ``documents[i]``."""

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
    max_source_length: int,
    max_target_length: int,
    cache_dir: str | None = None,
    processes: int | None = None,
) -> TokenizedSplit:
    """The split from the cache; tokenized first where it is not there yet.

    ``processes`` bounds the threads that tokenize. The tokenizers' library makes its pool of threads once in a process,
    so that only the first call's number counts, except that 1 always means one thread.
    """
    about = {
        "format_version": FORMAT_VERSION,
        "texts": texts_fingerprint,
        "tokenizers": tokenizers.fingerprint(),
        "max_source_length": max_source_length,
        "max_target_length": max_target_length,
    }
    fingerprint = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:20]

    tokenized = False

    def build(folder: Path) -> None:
        nonlocal tokenized
        tokenized = True
        _set_threads(processes)
        began = time.perf_counter()
        _write(folder, examples, tokenizers, max_source_length, max_target_length)
        (folder / "meta.json").write_text(json.dumps({**about, "examples": len(examples)}, indent=2) + "\n")
        _log.info("tokenized %d %s examples in %.1f s", len(examples), name, time.perf_counter() - began)

    split = TokenizedSplit(build_once(cache_root(cache_dir) / "tokens" / f"{name}-{fingerprint}", build))
    if not tokenized:
        _log.info("%d %s examples are read from the token cache: %s", len(split), name, split.folder)
    return split


def _write(
    folder: Path, examples: Sequence[Example], tokenizers: TokenizerPair, max_source_length: int, max_target_length: int
) -> None:
    with _RowsWriter(folder, "source") as sources, _RowsWriter(folder, "target") as targets:
        for some in _together(examples):
            sources.append(tokenizers.encode_sources([example.document for example in some], max_source_length))
            targets.append(tokenizers.encode_targets([example.summary for example in some], max_target_length))


def _together(examples: Sequence[Example]) -> Iterator[list[Example]]:
    """Examples to tokenize in one call, which takes forty times their texts' memory."""
    some: list[Example] = []
    characters = 0
    for example in examples:
        some.append(example)
        characters += len(example.document) + len(example.summary)
        if len(some) == _TEXTS_AT_A_TIME or characters > _CHARACTERS_AT_A_TIME:
            yield some
            some, characters = [], 0
    if some:
        yield some


class _RowsWriter:
    """Appends rows of ids to a .npy file, whose header is written again with the true length at the end."""

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
        # numpy leaves room in the header for a growing length.
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
        raise _damaged(folder, f"{offsets.name} is not of {ids.name}")
    return mapped, read


def _damaged(folder: Path, reason: str) -> UserError:
    return UserError(
        f"The token cache {folder} is damaged ({reason}). Delete the folder; the same command makes it again."
    )


def _paths(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f"{name}_ids.npy", folder / f"{name}_offsets.npy"


def _set_threads(processes: int | None) -> None:
    if processes is not None and processes > 1:
        os.environ.setdefault("RAYON_NUM_THREADS", str(processes))
    # Said outright, because the library warns at every later fork (a loader's workers) where it had to guess.
    os.environ["TOKENIZERS_PARALLELISM"] = "false" if processes == 1 else "true"
