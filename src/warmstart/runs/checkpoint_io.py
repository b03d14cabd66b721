"""Checkpoint files that are whole or not there, known as such by their checksum, and that hold data alone.

Lightning's own writer first copies the checkpoint into memory, and its temporary file may lie on another disk, from
where it is copied into place: a kill in the middle leaves half of ``last.ckpt``. Here it is written beside its
target, synced and renamed. ``SHA256SUMS`` beside it is what ``sha256sum -c`` reads.
"""

import contextlib
import hashlib
import logging
import os
import pickle
import zipfile
import zlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from warmstart.atomic import replacing, write_text
from warmstart.errors import UserError, says_nothing_of_the_file
from warmstart.runs.run_dir import CheckpointDir

_log = logging.getLogger(__name__)
Sums = dict[str, list[str]]  # digests by file name; two of one name only while that file is being replaced


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes by renaming; reads with ``weights_only=True`` whatever is asked.

    Keeps the ``keep`` newest of ``last.ckpt``: older ones are ``last-1.ckpt``, ``last-2.ckpt`` and so on.
    """

    def __init__(self, keep: int = 1) -> None:
        self.keep = keep

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write the checkpoint whole or not at all, with its checksum next to it."""
        target = Path(path)
        with replacing(target, "wb") as file:
            hashing: Any = _Hashing(file)
            torch.save(checkpoint, hashing)
            before = read_sums(target.parent)
            files, folder = [target], CheckpointDir(target.parent)
            if target == folder.last:
                files += [folder.older(age) for age in range(1, self.keep)]
            names = [path.name for path in files]
            after = before | {new: before[old] for old, new in pairwise(names) if old in before}
            after[target.name] = [hashing.digest.hexdigest()]
            file.flush()
            os.fsync(file.fileno())
            # A kill after any of the next lines leaves files of which each still has its digest here.
            _write_sums(target.parent, {name: before.get(name, []) + after.get(name, []) for name in before | after})
            _move_on(files)
        _write_sums(target.parent, after)

    def load_checkpoint(
        self, path: Any, map_location: Any = "cpu", weights_only: bool | None = None, *, mmap: bool = False
    ) -> dict[str, Any]:
        """Read a checkpoint; with ``mmap``, tensors only when they are used.

        Raises:
            UserError: there is none, it is damaged, or it holds more than data.
        """
        if not Path(path).is_file():
            raise UserError(f"ckpt={path} was asked for, but there is no such file. Name a .ckpt file.")
        try:
            found: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
        except (RuntimeError, EOFError, pickle.UnpicklingError, KeyError, ValueError) as error:
            if says_nothing_of_the_file(error):
                raise
            raise UserError(
                f"ckpt={path} cannot be read: it is damaged, or holds code in addition to data "
                f"({str(error).splitlines()[0] if str(error) else type(error).__name__}). Resume from another one."
            ) from error
        return found


def newest_sound(folder: Path) -> Path | None:
    """The newest of ``last.ckpt``, ``last-1.ckpt`` ... that is undamaged; None where there is none of them.

    Raises:
        UserError: there are some, and all are damaged.
    """
    damaged: list[Path] = []
    for path in CheckpointDir(folder).newest_first():
        if is_sound(path):
            if damaged:
                _log.warning("Damaged: %s. Resuming from %s.", ", ".join(map(str, damaged)), path)
            return path
        damaged.append(path)
    if damaged:
        raise UserError(
            f"Damaged: {', '.join(map(str, damaged))}, and there is no older one. Set ckpt=new to begin anew."
        )
    return None


def is_sound(path: Path) -> bool:
    """Whether a checkpoint is what was written: by its checksum, or by its parts' where it has none."""
    digests = read_sums(path.parent).get(path.name)
    if digests is not None:
        return digest_of(path) in digests
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    # zipfile raises all of these for one byte of its directory that changed.
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, RuntimeError, EOFError, OverflowError) as error:
        if says_nothing_of_the_file(error):
            raise
        return False


def digest_of(*paths: Path) -> str:
    """SHA-256 of a file, or of several one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def read_sums(folder: Path) -> Sums:
    """``SHA256SUMS`` of a folder; a damaged line counts as none."""
    sums: Sums = {}
    with contextlib.suppress(FileNotFoundError):
        for line in CheckpointDir(folder).sums.read_text(encoding="utf-8", errors="replace").splitlines():
            digest, _, name = line.partition("  ")
            if name and len(digest) == 64:
                sums.setdefault(name, []).append(digest)
    return sums


class _Hashing:
    """What ``torch.save`` writes to: the file, and its digest on the way."""

    def __init__(self, file: Any) -> None:
        self.file, self.digest = file, hashlib.sha256()

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return int(self.file.write(data))

    def flush(self) -> None:
        self.file.flush()


def _write_sums(folder: Path, sums: Sums) -> None:
    lines = [f"{digest}  {name}\n" for name, digests in sorted(sums.items()) for digest in dict.fromkeys(digests)]
    write_text(CheckpointDir(folder).sums, "".join(lines))


def _move_on(files: list[Path]) -> None:
    """Each file to the next one's name, the last one's place; the first stays where it is, under both names."""
    for newer, older in reversed(list(pairwise(files))):
        if not newer.exists():
            continue
        if newer is not files[0]:
            newer.replace(older)
            continue
        link = older.with_name(f".{older.name}.{os.getpid()}.tmp")
        link.unlink(missing_ok=True)
        try:
            os.link(newer, link)
        except OSError:  # a file system without links
            newer.replace(older)
        else:
            link.replace(older)
