"""Sweeps that the same command resumes: each job has a folder named by the hash of its config.

    python run.py -m encoder=bert,roberta decoder=bert,gpt2 seed=1,2,3

A complete job does not run again, an unfinished one resumes from its last checkpoint, a failed one is tried again. The
sweep ends with a list of its jobs, and with exit status 1 if one failed.
"""

import copy
import hashlib
import logging
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, flag_override

from warmstart.atomic import write_text
from warmstart.config.explicit import CommandLine
from warmstart.config.metrics import TITLES, primary_of
from warmstart.config.schema import Config, to_settings
from warmstart.damaged_files import DamagedFile
from warmstart.errors import UserError
from warmstart.runs.explain import explain
from warmstart.runs.identity import config_hash, config_hash_1
from warmstart.runs.lock import held
from warmstart.runs.run_dir import RunDir, SweepDir

_log = logging.getLogger(__name__)
# Lightning sets these for the ranks of one job. If they stayed set, the next job would start as such a rank.
_RANK_VARIABLES = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_JOBLIB = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"
RANK_OF_JOB = "WARMSTART_RANK_OF_JOB"  # set for the other ranks of a job, whose command has its overrides and no -m


def sweep_folder(words: list[str]) -> str:
    """Return the folder name of a sweep without ``name=``: a hash of its overrides, except those of Hydra itself.

    Args:
        words: arguments of the command line.
    """
    choices = sorted(word for word in words if not word.startswith(("-", "hydra.", "hydra/", "+hydra")))
    return hashlib.sha256("\n".join(choices).encode()).hexdigest()[:12]


def job_folder(root: DictConfig) -> str:
    """Return the folder name of a job: for a fit the hash of its config, for other tasks the task and the job's number.

    Other tasks have no hash, because ``ckpt`` does not change it. A job that an earlier release started keeps its
    folder, whose name is version 1 of the hash.

    Args:
        root: whole config of the job.

    Raises:
        UserError: ``ckpt`` is set, but the jobs of a sweep resume from their own checkpoints.
    """
    if root.task != "fit":
        return f"{root.task}-{root.hydra.job.num}"
    if root.ckpt is not None:
        raise UserError(
            f"ckpt={root.ckpt} was requested in a sweep of fits, but its jobs resume from their own checkpoints. To "
            "start each job from the weights of another run, set ckpt_weights= instead."
        )
    from warmstart.training.recipe import with_recipe

    settings = with_recipe(without_hydra(root), CommandLine.of(root.hydra)).settings
    earlier = config_hash_1(settings)
    if earlier is not None and (Path(str(root.hydra.sweep.dir)) / earlier).is_dir():
        return earlier
    return config_hash(settings)


def without_hydra(root: DictConfig) -> Config:
    """Return the settings in a job's whole config."""
    config = copy.deepcopy(root)
    with flag_override(config, ["struct", "readonly"], False):
        del config["hydra"]
    return to_settings(config)


class JobFailed(Exception):
    """A job failed; its log and its ``result.json`` hold the reason, and the sweep's list of jobs repeats it."""


class Sweep(Callback):
    """A Hydra callback that records the folder of this process's sweep, and replaces joblib's launcher with ours."""

    folder: Path | None = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Record the folder and replace the launcher."""
        Sweep.folder = Path(str(config.hydra.sweep.dir))
        # A launcher of the same name would not work: which of the two Hydra finds depends on the order of sys.path.
        if config.hydra.launcher._target_ == _JOBLIB:
            with flag_override(config.hydra, "readonly", False):
                config.hydra.launcher._target_ = "hydra_plugins.warmstart_joblib.ProcessLauncher"


def run_job(settings: Config, run_dir: Path) -> float:
    """Run one job of a sweep, or resume it, or do nothing if it is complete.

    Args:
        settings: the config of the job.
        run_dir: folder of the job.

    Returns:
        The best validation score; NaN if the fit ended before a validation.

    Raises:
        JobFailed: the job failed; its log holds the reason.
    """
    from warmstart.tasks import fit

    # Ranks that srun or torchrun started must not wait for the lock: the others would already be in the fit.
    ranks = int(os.environ.get("SLURM_STEP_NUM_TASKS") or os.environ.get("WORLD_SIZE") or 1)
    with held(run_dir, wait=ranks == 1):
        try:
            earlier = _result(run_dir)
        except DamagedFile as error:
            _log.warning("%s The job runs again.", error)
            earlier = {}
        if earlier.get("status") == "complete":
            if earlier.get("config_hash") != run_dir.name or "validation" not in earlier:
                another = (
                    f"{run_dir} holds a result that is not from this sweep's fit, perhaps from task=evaluate. Move it "
                    "elsewhere; if result.previous.json is the fit's result, rename it to result.json."
                )
                _log.error("%s", another)
                raise JobFailed(another)
            _log.info("Already complete, not run again: %s", run_dir)
            best = earlier["validation"].get("best")
            return math.nan if best is None else float(best)
        _name_wandb_run(run_dir)
        group = settings.logger.group or run_dir.parent.name
        settings = replace(settings, logger=replace(settings.logger, group=group))
        try:
            with ranks_of_this_job(run_dir):
                return fit.run(settings, run_dir)
        except Exception as error:
            # Hydra does not write a job's traceback into the job's log.
            message = explain(error)
            _log.error("%s", message or f"The job failed: {run_dir}", exc_info=message is None)
            raise JobFailed(message or repr(error)) from error


def summary(folder: Path) -> tuple[list[str], int]:
    """Return a line for each fit in a sweep's folder, and the number of failed ones."""
    lines, failed = [], 0
    for job in SweepDir(folder).jobs():
        status, detail, words = "partial", "the same command resumes it", list[str]()
        result: dict[str, Any] = {}
        try:
            if job.read_hydra_config().get("task") != "fit":
                continue
            result = _result(job.path)
            status = result.get("status", status)
            words = job.read_hydra_overrides()
        except (DamagedFile, FileNotFoundError) as error:
            status, detail = "damaged", f"{error} The same command writes it again."
        if status == "complete":
            detail = _scores(result)
        elif status == "failed":
            detail = str(result.get("error"))
            failed += 1
        lines.append(f"  {job.path.name}  {status:8}  {' '.join(words)}  {detail}")
    return lines, failed


def _scores(result: dict[str, Any]) -> str:
    """Format the best validation score and the test score, if there are any."""
    primary = primary_of(result.get("signatures") or [])
    validation, score = result.get("validation") or {}, result.get("metrics", {}).get(f"test/{primary}")
    best = [] if validation.get("best") is None else [f"{validation.get('monitor')} {validation['best']:.4f}"]
    return ", ".join([*best, *([] if score is None else [f"test {TITLES[primary]} {score:.2f}"])])


def _result(run_dir: Path) -> dict[str, Any]:
    """Return the result of a job; empty if it has none.

    Raises:
        DamagedFile: the result cannot be read.
    """
    try:
        return RunDir(run_dir).read_result()
    except DamagedFile:
        raise
    except UserError:
        return {}


def _name_wandb_run(run_dir: Path) -> None:
    """Derive the id of the job's W&B run from the sweep and the hash, so that a resumed job continues the same run."""
    path = RunDir(run_dir).wandb_id
    if not path.exists():
        job = f"{run_dir.parent.name}/{run_dir.name}"
        write_text(path, hashlib.sha256(job.encode()).hexdigest()[:12])


@contextmanager
def ranks_of_this_job(run_dir: Path) -> Iterator[None]:
    """Make Lightning start the other ranks of this block as ranks of this job.

    Lightning repeats ``sys.argv``, which is the command of the whole sweep: each rank would start its own sweep, and
    under Optuna propose its own parameters. In this block, a rank is started with the job's overrides, without -m, in
    the job's folder. Afterwards the process group is destroyed and the environment restored.

    Args:
        run_dir: folder of the job.
    """
    import torch

    import __main__

    argv, spec = sys.argv, __main__.__spec__
    environment = {name: os.environ.get(name) for name in (*_RANK_VARIABLES, RANK_OF_JOB)}
    os.environ[RANK_OF_JOB] = "1"
    overrides = list(HydraConfig.get().overrides.task)
    sys.argv = [argv[0], *overrides]
    __main__.__spec__ = find_spec("warmstart.cli.main")
    config: Any = HydraConfig.instance().cfg
    with flag_override(config.hydra, "readonly", False):
        config.hydra.run.dir = str(run_dir)
    try:
        yield
    finally:
        sys.argv, __main__.__spec__ = argv, spec
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        for name, value in environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
