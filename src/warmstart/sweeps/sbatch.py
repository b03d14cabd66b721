"""Print the SLURM batch script of a fit or of a sweep, for the user to read, change and submit.

    python run.py task=sbatch name=mine trainer=ddp trainer.devices=8 encoder=bert decoder=gpt2 | sbatch
    python run.py -m task=sbatch name=matrix encoder=bert,roberta decoder=bert,gpt2 seed=1,2,3 | sbatch

    python run.py -m task=sbatch hydra/launcher=submitit_slurm encoder=bert,roberta

A sweep becomes a job array with a task for each job. The jobs have the same folders as under the sweep's own command,
so either command resumes what the other one started. The last form prints what submitit would submit. That script is
only for reading: it refers to files that submitit writes when it submits.
"""

import shlex
import sys
import unicodedata
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from warmstart.compat.submitit import submission_script
from warmstart.config.explicit import CommandLine
from warmstart.config.schema import Config
from warmstart.errors import UserError
from warmstart.sweeps.sweep import Sweep, without_hydra
from warmstart.tasks.check import validate
from warmstart.training.recipe import with_recipe


def run(settings: Config, run_dir: Path) -> None:
    """Print the script of a fit.

    It starts a task for each device, gets a signal two minutes before the time limit, and is requeued.

    Args:
        settings: the config of the fit.
        run_dir: unused; every task takes it.

    Raises:
        UserError: the config is invalid, or has no name by which a requeued job finds its run.
    """
    name = _name(settings)
    validate(with_recipe(settings).settings)
    words = _words(HydraConfig.get().overrides)
    lines = [*_head(settings, name), _option("output", f"{settings.output_root}/{name}-%j.out", "output_root")]
    print(*lines, _srun(words), sep="\n")


def print_array(configs: list[DictConfig]) -> None:
    """Print one script for the jobs of a sweep; each array task runs a sweep of one job.

    Args:
        configs: whole config of each job.

    Raises:
        UserError: a job's config is invalid, the sweep has no name, or its jobs need different machines.
    """
    jobs = _validated(configs)
    words = [_words(config.hydra.overrides) for config in configs]
    name = _name(jobs[0])
    heads = [_head(job, name) for job in jobs]
    if any(head != heads[0] for head in heads):
        raise UserError(
            "All jobs of an array get the same machines, but these jobs differ in trainer.nodes, trainer.devices or "
            "trainer.accelerator. Print one script for each value."
        )
    common = [word for word in words[0] if all(word in other for other in words)]
    lines = [
        *heads[0],
        f"#SBATCH --array=0-{len(jobs) - 1}",
        _option("output", f"{jobs[0].output_root}/{name}-%A_%a.out", "output_root"),
        "case $SLURM_ARRAY_TASK_ID in",
        *(f"{i}) job=({shlex.join([w for w in of_job if w not in common])}) ;;" for i, of_job in enumerate(words)),
        "esac",
    ]
    print(*lines, _srun(["-m", *common]) + ' "${job[@]}"', sep="\n")


def print_submitit(configs: list[DictConfig], queue: dict[str, Any]) -> None:
    """Print the script that ``hydra/launcher=submitit_slurm`` would submit.

    Args:
        configs: whole config of each job.
        queue: settings of the launcher.

    Raises:
        UserError: a job's config is invalid or does not match the launcher's nodes and tasks, or a setting of the
            launcher has a line break.
    """
    from submitit.slurm.slurm import SlurmExecutor

    for job in _validated(configs):
        for option, key in (("tasks_per_node", "devices"), ("nodes", "nodes")):
            wanted = getattr(job.trainer, key)
            if queue[option] != wanted:
                raise UserError(
                    f"hydra.launcher.{option}={queue[option]}, but the jobs have trainer.{key}={wanted}: SLURM starts "
                    f"a task for each device. Set hydra.launcher.{option}={wanted}."
                )

    class Anywhere(SlurmExecutor):
        """An executor for machines without srun, which submitit checks for; writing a script does not need it."""

        @classmethod
        def affinity(cls) -> int:
            """Report that SLURM is available."""
            return 1

    queue = {name: OmegaConf.to_object(value) if OmegaConf.is_config(value) else value for name, value in queue.items()}
    for name, value in queue.items():
        # A mapping holds further sbatch options. Lists (setup, srun_args) are meant to be lines of shell.
        for text in (f"{k}: {v}" for k, v in value.items()) if isinstance(value, dict) else [value]:
            if isinstance(text, str):
                _one_line(f"hydra.launcher.{name}", text)
    executor = Anywhere(queue.pop("submitit_folder"), max_num_timeout=queue.pop("max_num_timeout"))
    print(submission_script(executor, {k: v for k, v in queue.items() if v is not None}, len(configs)))


def _validated(configs: list[DictConfig]) -> list[Config]:
    Sweep.folder = None  # no job runs, so do not print a summary of jobs
    jobs = [without_hydra(config) for config in configs]
    for job, config in zip(jobs, configs, strict=True):
        try:
            validate(with_recipe(job, CommandLine.of(config.hydra)).settings)
        except UserError as error:
            raise UserError(f"{' '.join(_words(config.hydra.overrides))}: {error}") from error
    return jobs


def _name(settings: Config) -> str:
    if settings.name is None:
        raise UserError("task=sbatch needs name=: a requeued job finds its run by this name.")
    if settings.ckpt == "new":
        raise UserError(
            "task=sbatch does not accept ckpt=new: a requeued job would start over each time. Remove the run's folder, "
            "or set another name=."
        )
    return settings.name


def _words(overrides: Any) -> list[str]:
    """Return a job's overrides without those that only print this script."""
    printing = ("task=", "hydra.mode=", "hydra/launcher=")
    return [word for word in (*overrides.hydra, *overrides.task) if not word.startswith(printing)]


def _head(settings: Config, name: str) -> list[str]:
    devices = settings.trainer.devices
    return [
        "#!/bin/bash",
        _option("job-name", name, "name"),
        f"#SBATCH --nodes={settings.trainer.nodes}",
        f"#SBATCH --ntasks-per-node={devices}",
        *([] if settings.trainer.accelerator == "cpu" else [f"#SBATCH --gpus-per-node={devices}"]),
        "#SBATCH --cpus-per-task=4",
        "#SBATCH --time=12:00:00",
        "#SBATCH --signal=USR1@120",
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
    ]


def _option(option: str, value: str, key: str) -> str:
    return f"#SBATCH --{option}={shlex.quote(_one_line(key, value))}"


def _one_line(key: str, value: str) -> str:
    """Return ``value`` if it fits on a ``#SBATCH`` line; quotes do not protect line breaks there.

    Raises:
        UserError: it has a control character; after a line break, bash would run the rest.
    """
    if any(unicodedata.category(letter) == "Cc" for letter in value):
        raise UserError(
            f"{key}={value!r} has a line break or another control character, which a #SBATCH line cannot hold. Remove "
            "it."
        )
    return value


def _srun(words: list[str]) -> str:
    return "srun " + shlex.join([Path(sys.executable).name, sys.argv[0], *words])
