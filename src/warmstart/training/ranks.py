"""Whether all ranks of a fit are ranks of the same fit."""

import logging
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

_log = logging.getLogger(__name__)


class OneConfig(Callback):
    """Stops a fit whose ranks were given different configs: they would average gradients of different runs, silently.

    A launcher that starts each rank from a command of its own can do that; Lightning's does in a sweep.

    Raises:
        RuntimeError: the ranks' hashes differ.
    """

    def __init__(self, config_hash: str) -> None:
        self.config_hash = config_hash

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return
        hashes: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(hashes, self.config_hash)
        if len(set(hashes)) > 1:
            said = ", ".join(f"rank {rank}: {value}" for rank, value in enumerate(hashes))
            raise RuntimeError(f"The ranks of this fit have different configs ({said}). Start all with one command.")
        if trainer.is_global_zero:
            _log.info("%d ranks, each with config %s", len(hashes), self.config_hash)
