"""Run by test_writes.py, with faulty_writes.so loaded: commands of ``run.py``, each in a fork of this process.

A line of standard input is ``{"words": [...], "folder": ..., "environment": {...}, "log": FILE}``; the answer is the
exit status. Forks spare the seconds in which torch is imported.
"""

import json
import os
import sys
import traceback

import lightning  # noqa: F401
import torch
import transformers  # noqa: F401

from warmstart.app import evaluate, export, fit, search, summarize  # noqa: F401
from warmstart.app.cli import main


def run(words, folder, environment, log):
    for number in (1, 2):
        os.dup2(os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND), number)
    os.chdir(folder)
    sys.argv = ["run.py", *words]
    os.environ.update(environment)
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
