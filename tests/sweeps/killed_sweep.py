"""Run by test_sweep.py: ``run.py`` that ends by SIGKILL, at a moment of a later job.

Each job takes three steps, with a validation and a checkpoint after each.

python killed_sweep.py in_a_fit -m encoder=bert seed=1,2,3
"""

import os
import signal
import sys
from contextlib import contextmanager

from warmstart.cli.main import main
from warmstart.runs import result
from warmstart.runs.checkpoint_io import AtomicCheckpointIO
from warmstart.training.module import SummarizationModule


def dies_at(call: int, function, when=lambda *args: True):
    """``function``, but death in its ``call``-th call of those that count."""
    calls = 0

    def wrapped(*args, **kwargs):
        nonlocal calls
        calls += when(*args)
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)

    return wrapped


def writes_half(replacing):
    """``replacing``, but of the second result only half reaches the disk."""
    results = 0

    @contextmanager
    def wrapped(path, *mode):
        nonlocal results
        results += path.name == "result.json"
        with replacing(path, *mode) as file:
            if results == 2 and path.name == "result.json":
                os.fsync = dies_at(1, os.fsync)
                write = file.write
                file.write = lambda text: write(text[: len(text) // 2])
            yield file

    return wrapped


def is_last(*args) -> bool:
    return "last.ckpt" in str(args[2])


if __name__ == "__main__":
    moment = sys.argv.pop(1)
    if moment == "before_the_first_checkpoint":
        SummarizationModule.training_step = dies_at(4, SummarizationModule.training_step)
    elif moment == "in_a_fit":
        AtomicCheckpointIO.save_checkpoint = dies_at(5, AtomicCheckpointIO.save_checkpoint, is_last)
    elif moment == "writing_the_result":
        result.replacing = writes_half(result.replacing)
    main()
