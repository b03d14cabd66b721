"""What Hydra writes into a run's folder: its configs whole or as they were, and a log whose disk may fill up."""

import logging
import sys
from pathlib import Path
from typing import Any

import hydra.core.utils
from omegaconf import OmegaConf

from warmstart.atomic import write_text


class LogFile(logging.FileHandler):
    """A log that cannot be written stops nothing: it is said once, instead of a traceback for each line."""

    _said = False

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._said:
            self._said = True
            reason = f"{error.strerror} ({self.baseFilename})"
            print(f"warmstart: the log cannot be written: {reason}. The run goes on.", file=sys.stderr)


class Console(logging.StreamHandler):
    """Log lines on standard output, of which none is missed once its reader (``| head``) has left."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], BrokenPipeError):
            super().handleError(record)


def write_configs_whole() -> None:
    """From now on. Hydra opens ``.hydra/config.yaml`` and overwrites it: half of one is yaml, too, with fewer keys."""

    def save(cfg: Any, filename: str, output_dir: Path) -> None:
        write_text(Path(output_dir) / filename, OmegaConf.to_yaml(cfg))

    hydra.core.utils._save_config = save
