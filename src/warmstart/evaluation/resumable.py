"""Keep the finished summaries of an evaluation, so that an interrupted evaluation resumes.

They are kept in a file of the cache, named by a hash of the weights, the tokenizers, the generation settings and the
texts, but not of any path or run. So the same command finds the file from any run directory. A complete evaluation
deletes it.
"""

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from warmstart.atomic import naming
from warmstart.errors import UserError
from warmstart.locks import Lock

FORMAT_VERSION = 1

_log = logging.getLogger(__name__)


class KeptSummaries:
    """The summaries that are already generated: ``done`` maps the index of an example to its summary.

    Each rank writes its own file and reads those of all ranks, so an evaluation can resume with another number of
    ranks. While another process holds the file, nothing is read or kept.

    Args:
        path: The file of rank 0; the other ranks' files are next to it.
        rank: This rank.
    """

    def __init__(self, path: Path, rank: int = 0) -> None:
        self.path = path.with_name(f"{path.stem}.{rank}{path.suffix}") if rank else path
        self._of_all = path.stem
        self.done: dict[int, str] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = _lock_of(self.path)
        try:
            taken = self._lock.acquire(wait=False)
        except UserError as error:
            _log.warning("%s Until then, finished summaries are not kept.", error)
            return
        if not taken:
            _log.warning("Another process generates the same summaries; if this one is interrupted, its own are lost.")
            return
        for other in self._others():
            self.done |= _read(other)[0]
        own, whole = _read(self.path)
        self.done |= own
        self._file = self.path.open("r+b" if self.path.exists() else "wb")
        # A killed process may have left an incomplete line; anything appended to it would be lost.
        self._file.truncate(whole)
        self._file.seek(whole)

    def add(self, indices: Sequence[int], summaries: Sequence[str]) -> None:
        """Write the summaries of a batch to disk before returning.

        Args:
            indices: Indices of the examples.
            summaries: Their summaries.

        Raises:
            OSError: They cannot be written.
        """
        if self._lock.is_held:
            lines = (json.dumps([i, text]) + "\n" for i, text in zip(indices, summaries, strict=True))
            with naming(self.path):
                self._file.write("".join(lines).encode())
                self._file.flush()
                os.fsync(self._file.fileno())

    def close(self, *, complete: bool) -> None:
        """Release the file.

        Args:
            complete: Whether the evaluation is complete: then the files of all ranks are deleted.
        """
        if not self._lock.is_held:
            return
        self._file.close()
        if complete:
            self.path.unlink(missing_ok=True)
        self._lock.release()
        if complete:
            for other in self._others():
                lock = _lock_of(other)
                with contextlib.suppress(UserError):
                    if lock.acquire(wait=False):
                        other.unlink(missing_ok=True)
                        lock.release()

    def _others(self) -> list[Path]:
        found = (self.path.parent / f"{self._of_all}.jsonl", *self.path.parent.glob(f"{self._of_all}.*.jsonl"))
        return [path for path in found if path != self.path and path.exists()]


def _lock_of(path: Path) -> Lock:
    return Lock(path.with_name(f"{path.name}.lock"))


def _read(path: Path) -> tuple[dict[int, str], int]:
    """Return the summaries on complete lines, and the number of bytes of those lines."""
    done: dict[int, str] = {}
    whole = 0
    if path.exists():
        for line in path.read_bytes().splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break
            try:
                index, text = json.loads(line)
            except (ValueError, TypeError, RecursionError):
                break
            if not isinstance(index, int) or not isinstance(text, str):
                break
            done[index] = text
            whole += len(line)
    return done, whole


def summaries_key(model: Any, tokenizers: Any, *about: Any) -> str:
    """Return a hash of everything that determines the summaries of an evaluation.

    Args:
        model: The model; its config and all its weights are hashed.
        tokenizers: The pair of tokenizers.
        about: Further values that can be written as JSON, such as the generation settings.
    """
    digest = hashlib.sha256(json.dumps([FORMAT_VERSION, tokenizers.fingerprint(), *about], sort_keys=True).encode())
    digest.update(json.dumps(model.config.to_dict(), sort_keys=True, default=str).encode())
    for name, value in model.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:32]
