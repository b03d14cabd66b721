"""Run by test_module.py: one optimizer step over two processes of unequal batches; rank 0 leaves its gradients.

Rank 0 decodes its batches in target-length buckets, rank 1 does not. With the argument "soft", the loss has a teacher
and R-Drop.
"""

import sys
from pathlib import Path

import lightning as L
import torch
from tiny_training import STILL, Letters, Recorder, batches, in_parts, tiny_model
from torch.utils.data import DataLoader

from warmstart.config.training import TrainerSettings
from warmstart.model.soft_targets import SoftTargets
from warmstart.training.trainer import build_trainer


class Data(L.LightningDataModule):
    def train_dataloader(self):
        rank = self.trainer.global_rank
        own = batches(2)[rank::2]
        if rank == 0:
            own = [in_parts(batch) for batch in own]
            assert all(len(batch["buckets"]) == 2 for batch in own)
        return DataLoader(own, batch_size=None)

    def val_dataloader(self):
        return DataLoader(batches(4)[self.trainer.global_rank :: 2], batch_size=None)


def main(folder: Path, *, soft: bool) -> None:
    module = Recorder(
        *(tiny_model().double(), Letters(), STILL, {"max_new_tokens": 2}),
        total_steps=1,
        hparams={},
        references=["a"] * 5,
        soft_targets=SoftTargets(tiny_model(seed=5).double(), 0.4, 2.0, rdrop=1.0) if soft else None,
    )
    settings = TrainerSettings(
        max_epochs=1, accumulate=2, accelerator="cpu", devices=2, strategy="ddp", clip_norm=0.0, progress_bar=False
    )
    trainer = build_trainer(settings, folder, [], [])
    trainer.fit(module, datamodule=Data())
    if trainer.is_global_zero:
        samples = [sample["index"] for sample in module.samples]
        torch.save({"gradients": module.gradients[0], "samples": samples}, folder / "two_ranks.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), soft="soft" in sys.argv[2:])
