"""Make Hydra robust: clear errors for broken YAML files, atomic config files, and logging that survives a full disk."""

import functools
import logging
import sys
from pathlib import Path
from typing import Any, TextIO

import hydra.core.utils
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from warmstart.atomic import write_text
from warmstart.errors import UserError
from warmstart.printing import say


class LogFile(logging.FileHandler):
    """A log file that reports a failed write once, instead of printing a traceback for each line."""

    _reported = False

    def handleError(self, record: logging.LogRecord) -> None:
        """Report the first OSError of a write, and ignore later ones."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._reported:
            self._reported = True
            reason = f"{error.strerror} ({self.baseFilename})"
            say(f"warmstart: the log cannot be written: {reason}. The run continues.", file=sys.stderr)


def explain_composition() -> None:
    """Patch Hydra so that every error while composing a config becomes a UserError.

    Hydra lets errors of YAML, of codecs and of its own assertions pass, and has no public function in which they could
    be caught.
    """
    compose = ConfigLoaderImpl.load_configuration
    if hasattr(compose, "__wrapped__"):
        return

    @functools.wraps(compose)
    def load_configuration(*args: Any, **kwargs: Any) -> DictConfig:
        try:
            return compose(*args, **kwargs)
        except (HydraException, OmegaConfBaseException):
            raise
        except Exception as error:
            raise UserError(
                f"The config cannot be composed ({type(error).__name__}: {' '.join(str(error).split())}). Check the "
                "overrides on the command line and the YAML files that they select."
            ) from error

    ConfigLoaderImpl.load_configuration = load_configuration  # type: ignore[method-assign]


class Console(logging.StreamHandler[TextIO]):
    """Log lines on standard output, without errors once the reader (``| head``) has closed the pipe."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Ignore a closed pipe."""
        if not isinstance(sys.exc_info()[1], BrokenPipeError):
            super().handleError(record)


def write_configs_whole() -> None:
    """Patch Hydra to write its config files atomically.

    Hydra overwrites ``.hydra/config.yaml`` in place. An incomplete one can still be valid YAML, with fewer keys.
    """

    def save(cfg: Any, filename: str, output_dir: Path) -> None:
        write_text(Path(output_dir) / filename, OmegaConf.to_yaml(cfg))

    hydra.core.utils._save_config = save
