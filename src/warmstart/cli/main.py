"""Run the task that the command line names, and turn errors into messages and exit statuses.

    python run.py task=fit encoder=bert decoder=gpt2

Exit status 2 is a user's mistake: one message without a traceback (``debug=true`` shows it). Status 1 is a defect of
warmstart, or a rank that was killed. Nothing heavy is imported before the config is composed.
"""

import importlib
import os
import re
import select
import signal
import sys
import uuid
from contextlib import suppress
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from warmstart.cli.help import page, versions
from warmstart.cli.hydra_files import explain_composition, write_configs_whole
from warmstart.config.own_files import with_own_files
from warmstart.config.quoting import quote, quote_texts, with_home
from warmstart.config.schema import TASKS, TASKS_ON_A_RUN, register, to_settings
from warmstart.config.shipped import config_dir
from warmstart.data.hub_access import set_timeout
from warmstart.errors import Interrupted, UserError
from warmstart.printing import escape_log_records, escape_tracebacks, say
from warmstart.runs.explain import explain, status_of
from warmstart.runs.recorded import with_recorded
from warmstart.runs.run_dir import RunDir
from warmstart.runs.saved_model import SavedModel
from warmstart.sweeps.sweep import (
    RANK_OF_JOB,
    JobFailed,
    Sweep,
    job_folder,
    ranks_of_this_job,
    run_job,
    summary,
    sweep_folder,
)

TASKS_WITH_RANKS = ("fit", "evaluate")
_TIMESTAMP = re.compile(r"\d{8}-\d{6}-")  # begins the folder of a run without a name, see conf/config.yaml


def run_task(cfg: DictConfig) -> object:
    """Run the task that ``cfg`` names in Hydra's output directory.

    Args:
        cfg: the composed config.

    Returns:
        What the task returns; for a fit in a sweep its best validation score.

    Raises:
        UserError: the task does not exist, or it cannot run as a sweep, a single run or several ranks as requested.
    """
    # Not only in main(): a launcher's worker processes start with this function.
    set_timeout()
    escape_log_records()
    register()
    if cfg.task not in TASKS:
        raise UserError(f"task={cfg.task} was requested. Set one of {', '.join(TASKS)}.")
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    ranks_started_outside = any(name in os.environ for name in ("TORCHELASTIC_RUN_ID", "SLURM_PROCID"))
    if (
        cfg.task in TASKS_WITH_RANKS
        and ranks_started_outside
        and cfg.name is None
        and HydraConfig.get().mode is RunMode.RUN
    ):
        raise UserError(
            "torchrun or srun starts the ranks, but the run has no name, so each rank would make its own folder. Set "
            "name=."
        )
    opened: list[SavedModel | None] = []  # passed to the task, so that the file is only read once
    if cfg.task in TASKS_ON_A_RUN:
        if cfg.ckpt == "last":
            cfg.ckpt = str(RunDir(run_dir).checkpoints.last)
        saved = None if cfg.ckpt is None else SavedModel(cfg.ckpt)
        cfg = with_recorded(cfg, list(HydraConfig.get().overrides.task), saved)
        opened = [saved]
    if cfg.task == "fit" and HydraConfig.get().mode is RunMode.MULTIRUN:
        return run_job(to_settings(cfg), run_dir)
    sweep = HydraConfig.get().runtime.choices.get("sweep")
    is_single_run = HydraConfig.get().mode is RunMode.RUN and RANK_OF_JOB not in os.environ
    if cfg.task in ("fit", "sbatch") and sweep and is_single_run:
        raise UserError(f"sweep={sweep} has several jobs, so it needs -m: python run.py -m sweep={sweep} ...")
    package = "sweeps" if cfg.task == "sbatch" else "tasks"
    module = importlib.import_module(f"warmstart.{package}.{cfg.task}")
    if cfg.task in TASKS_WITH_RANKS and HydraConfig.get().mode is RunMode.MULTIRUN:
        with ranks_of_this_job(run_dir):
            return module.run(to_settings(cfg), run_dir, *opened)
    return module.run(to_settings(cfg), run_dir, *opened)


def main() -> None:
    """Run the command line in ``sys.argv``: the entry point of ``run.py`` and of the ``warmstart`` command."""
    if "--version" in sys.argv:  # Hydra would print its own
        say(versions())
        return
    escape_log_records()
    escape_tracebacks()
    register()
    explain_composition()
    write_configs_whole()
    # oc.select does not work here: it returns an existing null instead of its default.
    OmegaConf.register_new_resolver("or", lambda value, other: other if value is None else value, replace=True)
    OmegaConf.register_new_resolver("unnamed", unnamed_folder, replace=True)
    OmegaConf.register_new_resolver("run_id", lambda: uuid.uuid4().hex[:4], use_cache=True, replace=True)
    every_option = "--help-all" in sys.argv
    sys.argv = ["--help" if word == "--help-all" else word for word in sys.argv]
    # Hydra substitutes names that begin with $.
    template = lambda: page(Path(config_dir()), every=every_option).replace("$", "$$")  # noqa: E731
    OmegaConf.register_new_resolver("help_page", template, replace=True)
    # debug=true is a switch of this function, while debug=tiny is a choice under conf/.
    debug = "debug=true" in sys.argv
    sys.argv = [word for word in sys.argv if word not in ("debug=true", "debug=false")]
    if (words := with_own_files(sys.argv)) != sys.argv:
        say("data.path names files of your own: data=files is set.", file=sys.stderr)
        sys.argv = words
    sys.argv = quote_texts(with_home(sys.argv))
    if "task=report" in sys.argv:
        sys.argv = report_arguments(sys.argv)
    if "task=sbatch" in sys.argv and {"-m", "--multirun"} & set(sys.argv):
        sys.argv = sbatch_arguments(sys.argv)
    sweep = sweep_folder(sys.argv[1:])  # compute it now: a launcher's worker processes have other arguments
    OmegaConf.register_new_resolver("sweep_folder", lambda: sweep, replace=True)
    OmegaConf.register_new_resolver("job_folder", lambda *, _root_: job_folder(_root_), replace=True)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra would print and exit on its own

    def task(cfg: DictConfig) -> object:
        try:
            return run_task(cfg)
        except BrokenPipeError:
            if HydraConfig.get().mode is RunMode.RUN:
                exit_if_reader_left()
            raise
        except Exception as error:
            # An error that is raised from here makes Hydra print its own line. In a sweep this line names the failed
            # job, and the other jobs run.
            if HydraConfig.get().mode is RunMode.RUN:
                if explain(error) is not None:
                    remove_unused_folder(cfg)
                exit_on_user_error(error, debug)
            raise

    try:
        try:
            hydra.main(version_base="1.3", config_path=config_dir(), config_name="config")(task)()
            print_sweep_summary()
        except SystemExit as ended:  # raised after --help
            if ended.code:
                raise
        print(end="", flush=True)  # flush now: a closed pipe at interpreter exit would print an error
    except BrokenPipeError:
        exit_if_reader_left()
        raise
    except KeyboardInterrupt as error:
        sys.exit(status_of(error))
    except Interrupted as interruption:
        hint = " Leave out ckpt=new then, or it starts over." if "ckpt=new" in sys.argv else ""
        say(f"warmstart: {interruption}{hint}", file=sys.stderr)
        sys.exit(status_of(interruption))
    except JobFailed:
        print_sweep_summary()
        sys.exit(1)
    except Exception as error:
        exit_on_user_error(error, debug)
        raise


def remove_unused_folder(cfg: DictConfig) -> None:
    """Delete the folder of a run without a name whose command failed before it did anything."""
    if cfg.name is None and cfg.task != "report" and int(os.environ.get("LOCAL_RANK") or 0) == 0:
        with suppress(OSError):  # the error that is reported matters more
            RunDir(Path(HydraConfig.get().runtime.output_dir)).remove_unused()


def unnamed_folder(choices: str, *, _root_: DictConfig) -> str:
    """Return the folder of runs without a name.

    Args:
        choices: names of the encoder, decoder and data, joined.

    Returns:
        ``choices``, or for a task that reads a checkpoint ``of-`` and the checkpoint's run.
    """
    if _root_.task not in TASKS_ON_A_RUN or _root_.ckpt is None:
        return choices
    run = RunDir.of(Path(_root_.ckpt).absolute()).path
    return "-".join(["of", run.parent.name, run.name] if _TIMESTAMP.match(run.name) else ["of", run.name])


def report_arguments(words: list[str]) -> list[str]:
    """Translate the command line of ``task=report``.

    There, ``sweep=FOLDER`` names a folder, not a choice of conf/sweep, and Hydra makes no output folder.
    """
    words = [f"runs=[{quote(word.partition('=')[2])}]" if word.startswith("sweep=") else word for word in words]
    return [*words, "hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=none"]


def sbatch_arguments(words: list[str]) -> list[str]:
    """Translate the command line of ``-m task=sbatch``: a launcher prints the jobs, because only it knows them all."""
    if "hydra/launcher=submitit_slurm" in words:  # keep its settings, but replace the launcher
        kept = [word for word in words if word != "task=sbatch"]
        return [*kept, "hydra.launcher._target_=hydra_plugins.warmstart_sbatch.SbatchLauncher"]
    kept = [word for word in words if word != "task=sbatch" and not word.startswith("hydra/launcher=")]
    return [*kept, "hydra/launcher=sbatch"]


def print_sweep_summary() -> None:
    """Print the list of fits and their outcomes, if this process ran a sweep."""
    if Sweep.folder is not None and Sweep.folder.is_dir():
        lines, failed = summary(Sweep.folder)
        if lines:
            say(f"Sweep {Sweep.folder}: {len(lines)} jobs, {failed} failed.", *lines)


def exit_if_reader_left() -> None:
    """Exit quietly if the reader of standard output (``| head``) has closed the pipe; return otherwise."""
    watch = select.poll()
    watch.register(sys.stdout, select.POLLOUT)
    if any(events & (select.POLLERR | select.POLLHUP) for _, events in watch.poll(0)):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # discards buffered output
        sys.exit(128 + signal.SIGPIPE)


def exit_on_user_error(error: Exception, debug: bool) -> None:
    """Print the message and exit if ``explain`` has one for the error; return otherwise, or if ``debug`` is set."""
    message = explain(error)
    if message is not None and not debug:
        say(f"warmstart: {message}", file=sys.stderr)
        sys.exit(status_of(error))


if __name__ == "__main__":  # the other ranks of a sweep's job start here
    main()
