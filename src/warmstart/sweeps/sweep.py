"""Jobs of a sweep: each in a folder named by its config's hash, so the same command again goes on where it ended.

    python run.py -m encoder=bert,roberta decoder=bert,gpt2 seed=1,2,3

What is complete is not run again, what is partial goes on from its last checkpoint, what failed is tried again. The
list of jobs stands at the end, and a failure makes the exit status 1.
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
from warmstart.config.schema import Config, to_settings
from warmstart.damaged_files import DamagedFile
from warmstart.errors import UserError
from warmstart.runs.explain import explain
from warmstart.runs.identity import config_hash
from warmstart.runs.lock import held
from warmstart.runs.run_dir import RunDir, SweepDir

_log = logging.getLogger(__name__)
# Lightning sets these for the processes of one job; the next job would take itself for a rank of the last one.
_OF_RANKS = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_JOBLIB = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"
RANK_OF_JOB = "WARMSTART_RANK_OF_JOB"  # set for the further ranks of a job, which have its words and no -m


def sweep_folder(words: list[str]) -> str:
    """Name of a sweep without ``name=``: the same for the same choices, whatever launcher runs them."""
    choices = sorted(word for word in words if not word.startswith(("-", "hydra.", "hydra/", "+hydra")))
    return hashlib.sha256("\n".join(choices).encode()).hexdigest()[:12]


def job_folder(root: DictConfig) -> str:
    """Name of a job's folder: its config's hash; a task that is no fit has its number, for ``ckpt`` changes no hash.

    Raises:
        UserError: a fit is told to resume something else.
    """
    if root.task != "fit":
        return f"{root.task}-{root.hydra.job.num}"
    if root.ckpt is not None:
        raise UserError(
            f"ckpt={root.ckpt} was asked for in a sweep of fits: its jobs resume from their own checkpoints. Set "
            "ckpt_weights= to start each from the weights of another run."
        )
    return config_hash(without_hydra(root))


def without_hydra(root: DictConfig) -> Config:
    """The settings of a job's whole config."""
    config = copy.deepcopy(root)
    with flag_override(config, ["struct", "readonly"], False):
        del config["hydra"]
    return to_settings(config)


class JobFailed(Exception):
    """A job failed, and said so in its log and its ``result.json``; the sweep's list repeats it."""


class Sweep(Callback):
    """Hydra's callback that keeps where the sweep of this process lies, and has our launcher run joblib's jobs."""

    folder: Path | None = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        Sweep.folder = Path(str(config.hydra.sweep.dir))
        # Here, because which of two launchers of one name Hydra finds depends on the order of sys.path.
        if config.hydra.launcher._target_ == _JOBLIB:
            with flag_override(config.hydra, "readonly", False):
                config.hydra.launcher._target_ = "hydra_plugins.warmstart_joblib.ProcessLauncher"


def run_job(settings: Config, run_dir: Path) -> float:
    """Bring one job to its end, from wherever an earlier sweep left it; returns its best validation score.

    Raises:
        JobFailed: for whatever reason; it is in the job's own log.
    """
    from warmstart.tasks import fit

    # Where srun or torchrun started the ranks, the others would be in the fit by the time that this one has waited.
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
                    f"{run_dir} holds another result than the sweep's fit left, perhaps of task=evaluate. Move it "
                    "elsewhere, and let result.previous.json be result.json again if that is the fit's."
                )
                _log.error("%s", another)
                raise JobFailed(another)
            _log.info("Complete already, not run again: %s", run_dir)
            best = earlier["validation"].get("best")
            return math.nan if best is None else float(best)
        _name_wandb_run(run_dir)
        group = settings.logger.group or run_dir.parent.name
        settings = replace(settings, logger=replace(settings.logger, group=group))
        try:
            with ranks_of_this_job(run_dir):
                return fit.run(settings, run_dir)
        except Exception as error:
            # Hydra prints no traceback of a job into that job's log.
            message = explain(error)
            _log.error("%s", message or f"The job failed: {run_dir}", exc_info=message is None)
            raise JobFailed(message or repr(error)) from error


def summary(folder: Path) -> tuple[list[str], int]:
    """A line for each fit in a sweep's folder, and how many failed."""
    lines, failed = [], 0
    for job in SweepDir(folder).jobs():
        status, said, words = "partial", "the same command goes on with it", list[str]()
        result: dict[str, Any] = {}
        try:
            if job.read_hydra_config().get("task") != "fit":
                continue
            result = _result(job.path)
            status = result.get("status", status)
            words = job.read_hydra_overrides()
        except (DamagedFile, FileNotFoundError) as error:
            status, said = "damaged", f"{error} The same command writes it again."
        if status == "complete":
            said = _scores(result)
        elif status == "failed":
            said = str(result.get("error"))
            failed += 1
        lines.append(f"  {job.path.name}  {status:8}  {' '.join(words)}  {said}")
    return lines, failed


def _scores(result: dict[str, Any]) -> str:
    """The best validation score, which a fit is judged by, and the test score where there is one."""
    validation, rouge = result.get("validation") or {}, result.get("metrics", {}).get("test/rouge1")
    said = [] if validation.get("best") is None else [f"{validation.get('monitor')} {validation['best']:.4f}"]
    return ", ".join([*said, *([] if rouge is None else [f"test ROUGE-1 {rouge:.2f}"])])


def _result(run_dir: Path) -> dict[str, Any]:
    """The result of a job, empty where there is none; a damaged one raises."""
    try:
        return RunDir(run_dir).read_result()
    except DamagedFile:
        raise
    except UserError:
        return {}


def _name_wandb_run(run_dir: Path) -> None:
    """A job's W&B run is known by its sweep and hash, so that a resumed job goes on in it."""
    path = RunDir(run_dir).wandb_id
    if not path.exists():
        place = f"{run_dir.parent.name}/{run_dir.name}"
        write_text(path, hashlib.sha256(place.encode()).hexdigest()[:12])


@contextmanager
def ranks_of_this_job(run_dir: Path) -> Iterator[None]:
    """Let Lightning start the further ranks as ranks of this job.

    It repeats ``sys.argv``, which is the whole sweep's: each rank would start a sweep of its own, under Optuna with
    parameters of its own. Here a rank is started with the job's overrides, without -m, in the job's folder. After the
    job its process group is gone, and the environment is as before.
    """
    import torch

    import __main__

    argv, spec = sys.argv, __main__.__spec__
    environment = {name: os.environ.get(name) for name in (*_OF_RANKS, RANK_OF_JOB)}
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
