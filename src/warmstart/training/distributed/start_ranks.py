"""Start the ranks of an evaluation, which has no Lightning trainer to do it."""

import os

from warmstart.config.training import TrainerSettings
from warmstart.errors import UserError
from warmstart.training.distributed.rank_watch import group_timeout

ASKS_FOR_RANKS = {"trainer", "trainer.devices", "trainer.nodes", "trainer.strategy"}


def start_ranks(trainer: TrainerSettings, named: set[str]) -> None:
    """Join the ranks that torchrun or srun has started, or start those that the command line requests.

    Recorded settings of a run do not start ranks, so a model that was trained on eight devices can be evaluated on one.

    Args:
        trainer: which devices, and how many.
        named: the keys that the command line sets.

    Raises:
        UserError: this machine does not have the devices.
    """
    environment = os.environ
    is_one_process = trainer.devices * trainer.nodes == 1
    if is_one_process and trainer.accelerator in ("gpu", "cuda") and named & {"trainer", "trainer.accelerator"}:
        import torch

        if not torch.cuda.is_available():
            raise UserError(
                f"trainer.accelerator={trainer.accelerator} was requested, but torch finds no GPU. Set trainer=cpu, "
                "or leave it out: an evaluation uses the devices that the machine has."
            )
    if "TORCHELASTIC_RUN_ID" in environment:
        devices = int(environment["LOCAL_WORLD_SIZE"])
        nodes = int(environment["WORLD_SIZE"]) // devices
    elif int(environment.get("SLURM_STEP_NUM_TASKS") or 1) > 1:  # set by srun
        nodes = int(environment["SLURM_STEP_NUM_NODES"])
        devices = int(environment["SLURM_STEP_NUM_TASKS"]) // nodes
    else:
        if not named & ASKS_FOR_RANKS:
            return
        devices, nodes = trainer.devices, trainer.nodes
    if devices * nodes > 1:
        from lightning.fabric import Fabric
        from lightning.fabric.strategies import DDPStrategy
        from lightning.fabric.utilities.exceptions import MisconfigurationException

        try:
            strategy = DDPStrategy(timeout=group_timeout(trainer))
            fabric = Fabric(accelerator=trainer.accelerator, strategy=strategy, devices=devices, num_nodes=nodes)
        except (MisconfigurationException, RuntimeError, ValueError) as error:
            raise UserError(
                f"trainer.accelerator={trainer.accelerator}, devices={devices} is not available on this machine: "
                f"{str(error).splitlines()[0]} Set what the machine has, or leave both out to evaluate in one process."
            ) from error
        fabric.launch()
