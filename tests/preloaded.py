"""Run ``run.py`` in a process of its own, forked from a server that has its imports.

A new interpreter takes about five seconds of CPU to import torch, Lightning and transformers, and the tests run
``run.py`` more than a hundred times.
"""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUN = ROOT / "run.py"
MODULES = (
    "warmstart.cli.main",
    "warmstart.data.datamodule",
    "warmstart.model.build",
    "warmstart.tasks.check",
    "warmstart.tasks.fit",
    "warmstart.tasks.evaluate",
    "warmstart.tasks.top_checkpoints",
    "warmstart.training.loggers.jsonl",
    "warmstart.training.module",
    "warmstart.training.trainer",
    "torch._dynamo",
    "transformers.models.bert.modeling_bert",
    "transformers.models.encoder_decoder.modeling_encoder_decoder",
    "transformers.models.gpt2.modeling_gpt2",
)
# Libraries read these on import, so where they differ from those of the server, a new interpreter is needed.
READ_ON_IMPORT = (
    *("HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HOME", "XDG_"),
    *("LOCAL_RANK", "NODE_RANK", "RANK", "SLURM_", "WORLD_SIZE"),
    *("OMP_", "PYTHON", "TRANSFORMERS_", "WARMSTART_CPU"),
)
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(list(MODULES))


def _read_on_import() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(READ_ON_IMPORT)}


_OF_SERVER = _read_on_import()


def run(words: Sequence[str | Path], cwd: Path, timeout: float, script: Path = RUN) -> subprocess.CompletedProcess:
    """Run ``run.py``, or another script that starts it, with ``words`` in ``cwd``, in this process's environment.

    Raises:
        subprocess.TimeoutExpired: it was still running after ``timeout`` seconds, and was killed.
    """
    command = [str(script), *map(str, words)]
    if _read_on_import() != _OF_SERVER:
        command.insert(0, sys.executable)
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=timeout)
    with tempfile.TemporaryDirectory() as folder:
        said = [Path(folder, name) for name in ("out", "err")]
        process = _SERVER.Process(target=_main, args=(command, str(cwd), dict(os.environ), said))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(command, timeout)
        return subprocess.CompletedProcess(command, process.exitcode, *(path.read_text("utf-8") for path in said))


def _main(command: list[str], cwd: str, environment: dict[str, str], said: list[Path]) -> None:
    """Become what ``python run.py`` would be."""
    multiprocessing.current_process().name = "MainProcess"
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for stream, path in zip((sys.stdout, sys.stderr), said, strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream.fileno())
    sys.argv = command
    sys.path[:] = [str(ROOT), *(path for path in sys.path if not path.startswith(str(ROOT / "tests")))]
    try:
        runpy.run_path(command[0], run_name="__main__")
    except Exception:
        sys.excepthook(*sys.exc_info())
        sys.exit(1)
    finally:
        atexit._run_exitfuncs()  # a forked process ends without them
