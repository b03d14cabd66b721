"""What Hydra reads and writes: yamls that cannot be composed, configs whole or as they were, a log on a full disk."""

import functools
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from warmstart.atomic import write_text
from warmstart.compat.hydra import set_config_writer, wrap_composition
from warmstart.errors import UserError
from warmstart.printing import say


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
            say(f"warmstart: the log cannot be written: {reason}. The run goes on.", file=sys.stderr)


def explain_composition() -> None:
    """From now on, make every error of a config's composition one that is explained.

    Hydra lets through whatever yaml, the codecs and its own assertions raise.
    """
    wrap_composition(_explained)


def _explained(compose: Callable[..., DictConfig]) -> Callable[..., DictConfig]:
    @functools.wraps(compose)
    def load_configuration(*args: Any, **kwargs: Any) -> DictConfig:
        try:
            return compose(*args, **kwargs)
        except (HydraException, OmegaConfBaseException):
            raise
        except Exception as error:
            raise UserError(
                f"The config cannot be composed ({type(error).__name__}: {' '.join(str(error).split())}). Look at the "
                "words of the command line and at the yamls that they name."
            ) from error

    return load_configuration


class Console(logging.StreamHandler):
    """Log lines on standard output, of which none is missed once its reader (``| head``) has left."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], BrokenPipeError):
            super().handleError(record)


def write_configs_whole() -> None:
    """From now on. Hydra opens ``.hydra/config.yaml`` and overwrites it: half of one is yaml, too, with fewer keys."""

    def save(cfg: Any, filename: str, output_dir: Path) -> None:
        write_text(Path(output_dir) / filename, OmegaConf.to_yaml(cfg))

    set_config_writer(save)
