"""Summaries that an interrupted evaluation had finished, so that the same evaluation goes on where it was.

A file of the cache, named by what identifies the summaries: the model's values, the tokenizers, the search and the
texts, but no path and no run. So the same command finds it in whatever run directory, and when the evaluation is
complete it is gone.
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
    """``done`` maps the index of an example to its summary; what is added is on disk when ``add`` returns.

    Each rank has a file of its own and reads those of all, so an evaluation goes on with another number of ranks, too.
    While another process holds the file, nothing is read and nothing kept.
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
            _log.warning("%s Until then no summaries are kept.", error)
            return
        if not taken:
            _log.warning("Another process makes the same summaries; none of these are kept if this one is interrupted.")
            return
        for other in self._others():
            self.done |= _read(other)[0]
        own, whole = _read(self.path)
        self.done |= own
        self._file = self.path.open("r+b" if self.path.exists() else "wb")
        # A process that was killed may have left half a line: what follows it would be lost with it.
        self._file.truncate(whole)
        self._file.seek(whole)

    def add(self, indices: Sequence[int], summaries: Sequence[str]) -> None:
        """Keep the summaries of a batch."""
        if self._lock.is_held:
            lines = (json.dumps([i, text]) + "\n" for i, text in zip(indices, summaries, strict=True))
            with naming(self.path):
                self._file.write("".join(lines).encode())
                self._file.flush()
                os.fsync(self._file.fileno())

    def close(self, *, complete: bool) -> None:
        """Let others have it; ``complete`` removes it, and what other ranks have left."""
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
    """The summaries of a file's whole lines, and the bytes that these are."""
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
    """The same for two evaluations exactly when they give the same summaries; ``about`` is what json can hold."""
    digest = hashlib.sha256(json.dumps([FORMAT_VERSION, tokenizers.fingerprint(), *about], sort_keys=True).encode())
    digest.update(json.dumps(model.config.to_dict(), sort_keys=True, default=str).encode())
    for name, value in model.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:32]
