"""Make Hydra robust: clear errors for broken YAML files, atomic config files, and logging that survives a full disk."""

import functools
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from warmstart.atomic import write_text
from warmstart.compat.hydra import set_config_writer, wrap_composition
from warmstart.config.explicit import refuse_several_choices
from warmstart.errors import UserError
from warmstart.printing import say


class LogFile(logging.FileHandler):
    """A log file that reports a failed write once, instead of printing a traceback for each line."""

    _reported = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
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

    Hydra lets errors of YAML, of codecs and of its own assertions pass.
    """
    wrap_composition(_explained)


def _explained(compose: Callable[..., DictConfig]) -> Callable[..., DictConfig]:
    @functools.wraps(compose)
    def load_configuration(*args: Any, **kwargs: Any) -> DictConfig:
        try:
            cfg = compose(*args, **kwargs)
        except (HydraException, OmegaConfBaseException):
            raise
        except Exception as error:
            raise UserError(
                f"The config cannot be composed ({type(error).__name__}: {' '.join(str(error).split())}). Check the "
                "overrides on the command line and the YAML files that they select."
            ) from error
        refuse_several_choices(cfg)
        return cfg

    return load_configuration


class Console(logging.StreamHandler[TextIO]):
    """Log lines, without errors once the reader (``2>&1 | head``) has closed the pipe."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Ignore a closed pipe."""
        if not isinstance(sys.exc_info()[1], BrokenPipeError):
            super().handleError(record)


def write_configs_whole() -> None:
    """Patch Hydra to write its config files atomically.

    Hydra overwrites ``.hydra/config.yaml`` in place. An incomplete one can still be valid YAML, with fewer keys.
    """

    def save(cfg: Any, filename: str, output_dir: Path) -> None:
        write_text(Path(output_dir) / filename, OmegaConf.to_yaml(cfg))

    set_config_writer(save)
