"""The batch script of a fit on SLURM: printed, to be read, changed and submitted.

python run.py task=sbatch name=mine trainer=ddp trainer.devices=8 encoder=bert decoder=gpt2 | sbatch
"""

import shlex
import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig

from warmstart.app.check import validate
from warmstart.app.schema import Config
from warmstart.errors import UserError


def run(settings: Config, run_dir: Path) -> None:
    """Print the script: a task for each device, two minutes' warning before the end, back into the queue by itself.

    Raises:
        UserError: the config is unsound, or has no name to find its run again by.
    """
    if settings.name is None:
        raise UserError("task=sbatch needs name=: a job that comes back from the queue finds its run by it.")
    validate(settings)
    words = [word for word in HydraConfig.get().overrides.task if not word.startswith("task=")]
    devices = settings.trainer.devices
    lines = [
        "#!/bin/bash",
        f"#SBATCH --job-name={shlex.quote(settings.name)}",
        f"#SBATCH --nodes={settings.trainer.nodes}",
        f"#SBATCH --ntasks-per-node={devices}",
        *([] if settings.trainer.accelerator == "cpu" else [f"#SBATCH --gpus-per-node={devices}"]),
        "#SBATCH --cpus-per-task=4",
        "#SBATCH --time=12:00:00",
        "#SBATCH --signal=USR1@120",
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        "#SBATCH --output=" + shlex.quote(f"{settings.output_root}/{settings.name}-%j.out"),
        "srun " + shlex.join([Path(sys.executable).name, sys.argv[0], *words]),
    ]
    print("\n".join(lines))
