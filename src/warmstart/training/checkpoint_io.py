"""Checkpoint files that are whole or not there, and that hold data alone.

Lightning's own writer first copies the checkpoint into memory, and its temporary file may lie on another disk, from
where it is copied into place: a kill in the middle leaves half of ``last.ckpt``. Here it is written beside its
target, synced and renamed.
"""

import os
import pickle
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from warmstart.errors import UserError


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes by renaming; reads with ``weights_only=True`` whatever is asked."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint.

        Raises:
            UserError: there is none, it is damaged, or it holds more than data.
        """
        try:
            return torch.load(path, map_location=map_location, weights_only=True)
        except FileNotFoundError:
            raise UserError(f"ckpt={path} was asked for, but there is no such file. Name a .ckpt file.") from None
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise UserError(
                f"ckpt={path} cannot be read: it is damaged, or holds code beside data "
                f"({str(error).splitlines()[0] if str(error) else type(error).__name__}). Resume from another one."
            ) from error
