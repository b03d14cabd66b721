"""Run commands of ``run.py`` with faulty_writes.so loaded, each in a fork of this process; started by test_writes.py.

Each line of standard input is ``{"words": [...], "folder": ..., "environment": {...}, "log": FILE}``; the answer is the
exit status. A fork does not need to import torch again.
"""

import contextlib
import json
import os
import signal
import sys
import traceback
from pathlib import Path

import lightning  # noqa: F401
import torch
import transformers  # noqa: F401

from warmstart.cli.main import main
from warmstart.sweeps import search  # noqa: F401
from warmstart.tasks import evaluate, export, fit, summarize  # noqa: F401
from warmstart.training.module import SummarizationModule
from warmstart.training.nonfinite import LossMonitor


def make_infinite(step):
    """Make the loss of one step infinite, so that the step is skipped and noted."""
    original = LossMonitor.skip_if_nonfinite

    def skip_if_nonfinite(self, optimizer, loss, norm, **place):
        original(self, optimizer, loss * torch.inf if place["step"] == step else loss, norm, **place)

    LossMonitor.skip_if_nonfinite = skip_if_nonfinite


def kill_wandb():
    """Kill W&B's process when the first epoch starts."""

    def on_train_epoch_start(module):
        for status in Path("/proc").glob("[0-9]*/status"):
            with contextlib.suppress(OSError):
                facts = dict(line.partition(":\t")[::2] for line in status.read_text().splitlines())
                if facts["PPid"] == str(os.getpid()) and facts["Name"].startswith("wandb-core"):
                    os.kill(int(facts["Pid"]), signal.SIGKILL)
                    print("W&B's process was killed", flush=True)
        module._step_sums = None

    SummarizationModule.on_train_epoch_start = on_train_epoch_start


def run(words, folder, environment, log):
    for number in (1, 2):
        os.dup2(os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND), number)
    os.chdir(folder)
    sys.argv = ["run.py", *words]
    os.environ.update(environment)
    if "INFINITE_STEP" in environment:
        make_infinite(int(environment["INFINITE_STEP"]))
    if "KILL_WANDB" in environment:
        kill_wandb()
    try:
        main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print("ready", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run(**json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
