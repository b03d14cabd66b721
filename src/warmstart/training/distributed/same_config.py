"""Check that all ranks of a fit have the same config, tokenizers and data."""

import logging
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from warmstart.errors import UserError

_log = logging.getLogger(__name__)
_FIXES = {
    "config": "Start all ranks with the same command.",
    "tokenizers": "Give every node the same tokenizer files and the same data.",
    "data": "Give every node the same data files.",
}


class SameOnAllRanks(Callback):
    """Stops a fit whose ranks have different inputs; they would silently average gradients of different runs.

    This can happen if each rank is started by its own command (as Lightning's launcher does in a sweep), or if nodes
    have their own copies of the data.

    Args:
        config: hash of the config.
        tokenizers: fingerprint of the pair of tokenizers.
        data: fingerprint of the texts.
    """

    def __init__(self, *, config: str, tokenizers: str, data: str) -> None:
        """Keep the three for the comparison."""
        self.inputs = {"config": config, "tokenizers": tokenizers, "data": data}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Compare the inputs of all ranks.

        Raises:
            UserError: the ranks differ in one of them.
        """
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return
        ranks: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(ranks, self.inputs)
        for name, fix in _FIXES.items():
            groups: dict[str, list[int]] = {}
            for rank, inputs in enumerate(ranks):
                groups.setdefault(inputs[name][:16], []).append(rank)
            if len(groups) > 1:
                found = "; ".join(f"{value} on {_names(group)}" for value, group in list(groups.items())[:10])
                raise UserError(f"The ranks of this fit differ in their {name}: {found}. {fix}")
        if trainer.is_global_zero:
            _log.info("%d ranks, each with config %s", len(ranks), self.inputs["config"])


def _names(ranks: list[int]) -> str:
    shown = ", ".join(map(str, ranks[:10])) + (" …" if len(ranks) > 10 else "")
    return f"rank {shown}" if len(ranks) == 1 else f"ranks {shown}"
