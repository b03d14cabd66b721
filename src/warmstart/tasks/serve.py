"""Serve summaries over HTTP with a trained run or an export, for other programs.

    python run.py task=serve ckpt=runs/demo
    python run.py task=serve ckpt=my-model serve.port=9000 serve.max_batch_tokens=16384

The service needs the extra ``serve``. It accepts connections from this machine only,
unless ``serve.host`` is set, stores nothing, and makes no requests itself.
"""

from importlib.util import find_spec
from pathlib import Path

from warmstart.config.explicit import CommandLine
from warmstart.config.schema import Config
from warmstart.data.cleaning import steps_named
from warmstart.errors import UserError, install_extra
from warmstart.runs.saved_model import SavedModel
from warmstart.tasks.check import validate_numbers

_PACKAGES = ("litserve", "prometheus_client")


def run(settings: Config, run_dir: Path, saved: SavedModel | None = None) -> None:
    """Serve until Ctrl-C.

    Args:
        settings: the config of the task.
        run_dir: not used.
        saved: the model that ``ckpt`` names; a worker process opens it again.

    Raises:
        UserError: a setting is invalid, the extra is not installed, the model cannot be loaded, or the port cannot be
            opened.
    """
    if settings.ckpt is None:
        raise UserError("task=serve needs ckpt=: a run directory, a .ckpt file or an exported folder.")
    line = CommandLine.current()
    given = [] if line is None else [word.partition("=")[0] for word in line.overrides]
    if of_demo := [name for name in ("host", "port") if name in given]:
        raise UserError(f"{of_demo[0]} is an option of task=demo. Set serve.{of_demo[0]}.")
    validate_numbers(settings)
    steps_named(settings.data.clean)
    if any(find_spec(name) is None for name in _PACKAGES):
        raise UserError(f"task=serve needs LitServe, which is not installed. {install_extra('serve')}.")
    # Only here: the service is a client of the public API, which is above the tasks.
    from warmstart.serving.server import serve

    serve(settings)
