"""Run by test_checkpoint_average.py: two processes train with both kinds of averages and leave their weights."""

import sys
from pathlib import Path

import torch
from written_training import run

from warmstart.config.training import TrainerSettings
from warmstart.runs.run_dir import CheckpointDir
from warmstart.training.callbacks.weight_average import WeightAverage
from warmstart.training.checkpoint_average import average_best


def main(folder: Path) -> None:
    chosen = {"devices": 2, "strategy": "ddp", "average_best": 2, "ema_decay": 0.8, "max_steps": 6}
    chosen |= {"max_epochs": 9, "accelerator": "cpu", "progress_bar": False, "validations_per_epoch": 2}
    module, trainer = run(folder, folder / "cache", samples=0, **chosen)
    (callback,) = (one for one in trainer.callbacks if isinstance(one, WeightAverage))
    averages = {name: average.clone() for name, average in callback._averages.items()}
    given = TrainerSettings(**chosen), CheckpointDir(folder / "checkpoints")
    record = average_best(*given, trainer, module, trainer.datamodule)["averaged_checkpoints"]
    found = {"record": record, "weights": module.state_dict(), "averages": averages}
    torch.save(found, folder / f"rank{trainer.global_rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
