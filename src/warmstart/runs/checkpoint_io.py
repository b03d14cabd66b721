"""Write checkpoints atomically with a checksum, and read them without executing code.

Lightning's own writer copies the checkpoint into memory first. Its temporary file may be on another disk, so a kill
while it is copied leaves an incomplete ``last.ckpt``. This one writes next to the target, syncs and renames. The
checksums are in ``SHA256SUMS`` in the same folder, for ``sha256sum -c``.
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
OPTIMIZER = "optimizer_states"  # the entry of a checkpoint
AVERAGE = "averaged_weights"  # entry with the averages of trainer.ema_decay, named as the weights in "state_dict"
Sums = dict[str, list[str]]  # digests by file name; a file has two only while it is being replaced


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes atomically, and always reads with ``weights_only=True``.

    Args:
        keep: number of last checkpoints to keep: ``last.ckpt``, and older ones as ``last-1.ckpt``, ``last-2.ckpt`` and
            so on.
    """

    def __init__(self, keep: int = 1) -> None:
        self.keep = keep

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint completely or not at all, and its checksum.

        The best checkpoints are written without the optimizer state, two thirds of a checkpoint: only the last one is
        resumed. With ``trainer.ema_decay`` they hold the averages in place of the weights. The checkpoint for
        ``task=replay`` holds no averages.
        """
        target = Path(path)
        if CheckpointDir(target.parent).holds_best(target):
            checkpoint = _without(checkpoint, OPTIMIZER, AVERAGE) | {"state_dict": evaluated_weights(checkpoint)}
        elif target == CheckpointDir(target.parent).nonfinite:
            checkpoint = _without(checkpoint, AVERAGE)
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
            # After a kill at any of the next lines, each file still has its digest in SHA256SUMS.
            _write_sums(target.parent, {name: before.get(name, []) + after.get(name, []) for name in before | after})
            _rotate(files)
        _write_sums(target.parent, after)

    def load_checkpoint(
        self, path: Any, map_location: Any = "cpu", weights_only: bool | None = None, *, mmap: bool = False
    ) -> dict[str, Any]:
        """Read a checkpoint; with ``mmap``, tensors are only read when they are used.

        Raises:
            UserError: there is no such file, it is damaged, or it holds code.
        """
        if not Path(path).is_file():
            raise UserError(f"ckpt={path} was requested, but there is no such file. Name a .ckpt file.")
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


def evaluated_weights(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return the weights with which the model of a checkpoint is evaluated: the averages, if it has any."""
    found: dict[str, Any] = checkpoint.get(AVERAGE) or checkpoint["state_dict"]
    return found


def _without(checkpoint: dict[str, Any], *entries: str) -> dict[str, Any]:
    return {name: value for name, value in checkpoint.items() if name not in entries}


def newest_sound(folder: Path) -> Path | None:
    """Return the newest intact checkpoint of ``last.ckpt``, ``last-1.ckpt`` and so on; None if there are none.

    Raises:
        UserError: all of them are damaged.
    """
    damaged: list[Path] = []
    for path in CheckpointDir(folder).newest_first():
        if is_sound(path):
            if damaged:
                _log.warning("Damaged checkpoints: %s. Resuming from %s.", ", ".join(map(str, damaged)), path)
            return path
        damaged.append(path)
    if damaged:
        raise UserError(
            f"Damaged checkpoints: {', '.join(map(str, damaged))}. None is left. Set ckpt=new to start over."
        )
    return None


def delete_older(folder: Path) -> None:
    """Delete ``last-1.ckpt`` and so on, if there is a ``last.ckpt``."""
    last = CheckpointDir(folder).last
    older = [path for path in CheckpointDir(folder).newest_first() if path != last]
    if not older or not last.exists():
        return
    for path in older:
        path.unlink(missing_ok=True)
    gone = {path.name for path in older}
    _write_sums(folder, {name: digests for name, digests in read_sums(folder).items() if name not in gone})


def is_sound(path: Path) -> bool:
    """Return whether a checkpoint is intact, by its checksum, or by those of the ZIP archive if it has none."""
    digests = read_sums(path.parent).get(path.name)
    if digests is not None:
        return digest_of(path) in digests
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    # zipfile raises all of these types if a byte of the archive's directory is wrong.
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, RuntimeError, EOFError, OverflowError) as error:
        if says_nothing_of_the_file(error):
            raise
        return False


def digest_of(*paths: Path) -> str:
    """Return the SHA-256 of a file, or of several files in sequence, as hexadecimal digits."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def read_sums(folder: Path) -> Sums:
    """Read ``SHA256SUMS`` of a folder; damaged lines are skipped."""
    sums: Sums = {}
    with contextlib.suppress(FileNotFoundError):
        for line in CheckpointDir(folder).sums.read_text(encoding="utf-8", errors="replace").splitlines():
            digest, _, name = line.partition("  ")
            if name and len(digest) == 64:
                sums.setdefault(name, []).append(digest)
    return sums


class _Hashing:
    """A file for ``torch.save`` that also computes the digest of what is written."""

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


def _rotate(files: list[Path]) -> None:
    """Rename each file to the name of the next, and drop the last.

    The first file keeps its name too, as a hard link, so that ``last.ckpt`` always exists.
    """
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
        except OSError:  # a file system without hard links
            newer.replace(older)
        else:
            link.replace(older)
