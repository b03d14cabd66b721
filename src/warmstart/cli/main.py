"""From the command line to a task, and from an error to a message and an exit status.

    python run.py task=fit encoder=bert decoder=gpt2

Status 2 is a user's mistake: one message, no traceback (``debug=true`` shows it). Status 1 is a defect of ours, or a
rank that was killed.
Nothing heavy is imported before the config is composed.
"""

import importlib
import os
import re
import select
import signal
import sys
import uuid
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from warmstart.cli.hydra_files import explain_composition, write_configs_whole
from warmstart.config.quoting import quote, quote_texts
from warmstart.config.schema import register, to_settings
from warmstart.data.hub_access import set_timeout
from warmstart.errors import Left, UserError
from warmstart.printing import escape_log_records, escape_tracebacks, say
from warmstart.runs.explain import explain, status_of
from warmstart.runs.recorded import with_recorded
from warmstart.runs.run_dir import RunDir
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

OF_A_RUN = ("evaluate", "summarize", "export", "replay", "demo")
OF_RANKS = ("fit", "evaluate")
_BY_TIME = re.compile(r"\d{8}-\d{6}-")  # of runs without a name, as conf/config.yaml has it
TASKS = ("fit", *OF_A_RUN, "report", "sbatch", "check")


def config_dir() -> str:
    """conf/ of the checkout, or the one inside the installed wheel."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parents[1] / "conf"
    return str(checkout if (checkout / "config.yaml").exists() else package / "conf")


def run_task(cfg: DictConfig) -> object:
    """Run the task that ``cfg`` names in Hydra's output directory."""
    set_timeout()  # here, not in main(): a launcher's worker calls this function only
    escape_log_records()  # here, too: a launcher's workers begin with this function
    if cfg.task not in TASKS:
        raise UserError(f"task={cfg.task} was asked for; there are {', '.join(TASKS)}.")
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    started_apart = any(name in os.environ for name in ("TORCHELASTIC_RUN_ID", "SLURM_PROCID"))
    if cfg.task in OF_RANKS and started_apart and cfg.name is None and HydraConfig.get().mode is RunMode.RUN:
        raise UserError("name= is needed where torchrun or srun starts the ranks: each would make a folder of its own.")
    if cfg.task in OF_A_RUN:
        if cfg.ckpt == "last":
            cfg.ckpt = str(RunDir(run_dir).checkpoints.last)
        cfg = with_recorded(cfg, list(HydraConfig.get().overrides.task))
    if cfg.task == "fit" and HydraConfig.get().mode is RunMode.MULTIRUN:
        return run_job(to_settings(cfg), run_dir)
    sweep = HydraConfig.get().runtime.choices.get("sweep")
    alone = HydraConfig.get().mode is RunMode.RUN and RANK_OF_JOB not in os.environ
    if cfg.task in ("fit", "sbatch") and sweep and alone:
        raise UserError(f"sweep={sweep} is a sweep of several jobs, and needs -m: python run.py -m sweep={sweep} ...")
    module = importlib.import_module(f"warmstart.tasks.{cfg.task}")
    if cfg.task in OF_RANKS and HydraConfig.get().mode is RunMode.MULTIRUN:
        with ranks_of_this_job(run_dir):
            return module.run(to_settings(cfg), run_dir)
    return module.run(to_settings(cfg), run_dir)


def main() -> None:
    """Entry point of ``run.py`` and of the ``warmstart`` command."""
    escape_log_records()
    escape_tracebacks()
    register()
    explain_composition()
    write_configs_whole()
    # oc.select gives a null that is there, not its default: every run without a name went to runs/None.
    OmegaConf.register_new_resolver("or", lambda value, other: other if value is None else value, replace=True)
    OmegaConf.register_new_resolver("unnamed", unnamed_folder, replace=True)
    OmegaConf.register_new_resolver("run_id", lambda: uuid.uuid4().hex[:4], use_cache=True, replace=True)
    # debug=true is a switch of this function; debug=tiny is a choice under conf/.
    debug = "debug=true" in sys.argv
    sys.argv = [word for word in sys.argv if word not in ("debug=true", "debug=false")]
    sys.argv = quote_texts(sys.argv)
    if "task=report" in sys.argv:
        sys.argv = as_report(sys.argv)
    if "task=sbatch" in sys.argv and {"-m", "--multirun"} & set(sys.argv):
        sys.argv = as_array(sys.argv)
    sweep = sweep_folder(sys.argv[1:])  # now: a launcher's workers have words of their own
    OmegaConf.register_new_resolver("sweep_folder", lambda: sweep, replace=True)
    OmegaConf.register_new_resolver("job_folder", lambda *, _root_: job_folder(_root_), replace=True)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra would print and exit on its own

    def task(cfg: DictConfig) -> object:
        try:
            return run_task(cfg)
        except BrokenPipeError:
            if HydraConfig.get().mode is RunMode.RUN:
                end_without_reader()
            raise
        except Exception as error:
            # Beyond this point Hydra prints a line of its own. In a sweep that line says which job failed, and going
            # through Hydra lets the other jobs run.
            if HydraConfig.get().mode is RunMode.RUN:
                end_of_user_error(error, debug)
            raise

    try:
        try:
            hydra.main(version_base="1.3", config_path=config_dir(), config_name="config")(task)()
            list_jobs()
        except SystemExit as ended:  # of --help
            if ended.code:
                raise
        print(end="", flush=True)  # now: after this function Python reports a reader that has left
    except BrokenPipeError:
        end_without_reader()
        raise
    except KeyboardInterrupt as error:
        sys.exit(status_of(error))
    except Left as left:
        anew = " Leave ckpt=new out then: it would begin anew." if "ckpt=new" in sys.argv else ""
        say(f"warmstart: {left}{anew}", file=sys.stderr)
        sys.exit(status_of(left))
    except JobFailed:
        list_jobs()
        sys.exit(1)
    except Exception as error:
        end_of_user_error(error, debug)
        raise


def unnamed_folder(choices: str, *, _root_: DictConfig) -> str:
    """The folder of runs without a name: that of their choices, or of the run whose checkpoint a task takes."""
    if _root_.task not in OF_A_RUN or _root_.ckpt is None:
        return choices
    run = RunDir.of(Path(_root_.ckpt).absolute()).path
    return "-".join(["of", run.parent.name, run.name] if _BY_TIME.match(run.name) else ["of", run.name])


def as_report(words: list[str]) -> list[str]:
    """A report's words: ``sweep=FOLDER`` is no choice of conf/sweep there, and no folder is made for its run."""
    words = [f"runs=[{quote(word.partition('=')[2])}]" if word.startswith("sweep=") else word for word in words]
    return [*words, "hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=none"]


def as_array(words: list[str]) -> list[str]:
    """The words of a sweep whose jobs are printed, not run: by a launcher, which alone knows them all."""
    if "hydra/launcher=submitit_slurm" in words:  # its settings, but not it
        kept = [word for word in words if word != "task=sbatch"]
        return [*kept, "hydra.launcher._target_=hydra_plugins.warmstart_sbatch.SbatchLauncher"]
    kept = [word for word in words if word != "task=sbatch" and not word.startswith("hydra/launcher=")]
    return [*kept, "hydra/launcher=sbatch"]


def list_jobs() -> None:
    """Say what became of every fit, where this process ran a sweep of them."""
    if Sweep.folder is not None and Sweep.folder.is_dir():
        lines, failed = summary(Sweep.folder)
        if lines:
            say(f"Sweep {Sweep.folder}: {len(lines)} jobs, {failed} failed.", *lines)


def end_without_reader() -> None:
    """Exit quietly, as ``| head`` expects, if it is standard output whose reader has left; return if it is not."""
    watch = select.poll()
    watch.register(sys.stdout, select.POLLOUT)
    if any(events & (select.POLLERR | select.POLLHUP) for _, events in watch.poll(0)):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still in its buffer
        sys.exit(128 + signal.SIGPIPE)


def end_of_user_error(error: Exception, debug: bool) -> None:
    """Exit with the message and status 2 if the error is a user's mistake; return if it is ours, or for ``debug``."""
    message = explain(error)
    if message is not None and not debug:
        say(f"warmstart: {message}", file=sys.stderr)
        sys.exit(status_of(error))


if __name__ == "__main__":  # the further ranks of a sweep's job
    main()
