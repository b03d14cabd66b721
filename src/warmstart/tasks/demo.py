"""Serve a web page that summarizes texts with trained runs and exports.

    python run.py task=demo ckpt=runs/demo
    python run.py task=demo ckpt=my-model port=8000

The page needs the extra ``demo``. The server accepts connections from this machine only,
unless ``host`` is set. It stores nothing and makes no requests itself. The size of a text is limited. One summary is
generated at a time, and a few requests may wait.
"""

import logging
import os
from importlib.util import find_spec
from pathlib import Path

from warmstart.config.schema import Config
from warmstart.data.cleaning import steps_named
from warmstart.errors import UserError, install_extra
from warmstart.runs.saved_model import SavedModel
from warmstart.tasks.check import validate_numbers

# gradio reads these once, on import: no reports of its use, no second server.
OFFLINE = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_SSR_MODE": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}

_log = logging.getLogger(__name__)


def run(settings: Config, run_dir: Path, saved: SavedModel | None = None) -> None:
    """Serve the page until Ctrl-C.

    Args:
        settings: the config of the task.
        run_dir: not used.
        saved: the model that ``ckpt`` names, if the caller has opened it.

    Raises:
        UserError: a setting is invalid, the extra is not installed, the model cannot be loaded, or the port cannot be
            opened.
    """
    if settings.ckpt is None:
        raise UserError("task=demo needs ckpt=: a run directory, a .ckpt file or an exported folder.")
    validate_numbers(settings)
    steps_named(settings.data.clean)  # reports unknown steps before the model is loaded
    if find_spec("gradio") is None:
        raise UserError(f"task=demo needs gradio, which is not installed. {install_extra('demo')}.")
    os.environ.update(OFFLINE)
    # Only here: gradio takes seconds to import. The page is a client of the public API, which is above the tasks.
    from warmstart.page.app import application
    from warmstart.page.guard import LOOPBACK
    from warmstart.page.menu import Menu
    from warmstart.page.server import opened, server_of

    with opened(settings.host, settings.port) as listening:
        menu = Menu(settings, saved)
        menu.load(settings.ckpt)
        server = server_of(application(menu), listening, settings.host)
        if settings.host not in LOOPBACK:
            _log.warning(
                "host=%s: every machine that can reach this one can use the page; there is no password.", settings.host
            )
        print(f"http://{settings.host}:{listening.getsockname()[1]}/ (stop with Ctrl-C)", flush=True)
        server.run(sockets=[listening])
