"""No config names code to run, whether it comes from conf/, from ``--config-dir``, from a sweep or from an override.

Our own groups are typed values and nothing more. Hydra itself still makes objects from names, in its callbacks, plugins
and logging; here each name has to be on a list before Hydra sees it.
"""

from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from warmstart.errors import UserError

TARGETS = frozenset({"warmstart.app.sweep.Sweep", "warmstart.app.run_lock.RunLock"})
PLUGINS = ("hydra._internal.core_plugins.", "hydra_plugins.")
"""Launchers and sweepers of installed packages: Hydra refuses those that are none."""
PLUGIN_PLACES = ("hydra.launcher._target_", "hydra.sweeper._target_", "hydra.sweeper.sampler._target_")
SAMPLERS = "optuna.samplers."
LOGGING = frozenset(
    {
        *("logging.Formatter", "logging.StreamHandler", "logging.FileHandler", "logging.NullHandler"),
        *("logging.handlers.RotatingFileHandler", "colorlog.ColoredFormatter", "warmstart.app.hydra_files.LogFile"),
        "warmstart.app.hydra_files.Console",
    }
)
STREAMS = frozenset({"ext://sys.stdout", "ext://sys.stderr"})


def refuse_code() -> None:
    """From now on, every config that Hydra composes is checked before anything is made from it.

    One that cannot be composed is a :class:`UserError`.
    """
    compose = ConfigLoaderImpl.load_configuration
    if hasattr(compose, "__wrapped__"):
        return

    def load_configuration(self: ConfigLoaderImpl, *args: Any, **kwargs: Any) -> DictConfig:
        try:
            cfg = compose(self, *args, **kwargs)
        except (HydraException, OmegaConfBaseException):
            raise
        except Exception as error:  # Hydra lets through whatever yaml, the codecs and its own assertions raise
            raise UserError(
                f"The config cannot be composed ({type(error).__name__}: {' '.join(str(error).split())}). Look at the "
                "words of the command line and at the yamls that they name."
            ) from error
        check_no_code(cfg)
        return cfg

    load_configuration.__wrapped__ = compose  # type: ignore[attr-defined]
    ConfigLoaderImpl.load_configuration = load_configuration  # type: ignore[method-assign]


def check_no_code(cfg: DictConfig) -> None:
    """Look at every name that could become code.

    Raises:
        UserError: one is not on the list.
    """
    _check(OmegaConf.to_container(cfg, resolve=False), "")


def _check(value: Any, key: str) -> None:
    if isinstance(value, dict):
        for name, inner in value.items():
            _check(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            _check(inner, f"{key}.{i}")
    elif isinstance(value, str):
        name = key.rsplit(".", 1)[-1]
        logs = key.startswith(("hydra.job_logging.", "hydra.hydra_logging."))
        if (
            (name == "_target_" and not _is_known_target(key, value))
            or (logs and name in ("class", "()") and value not in LOGGING)
            or (logs and "://" in value and value not in STREAMS)
            or (logs and "${" in value.replace("${hydra.", ""))
        ):
            raise UserError(
                f"{key}={value} names code to run, or could. warmstart runs none that a config names: take it out of "
                "the command line or of the yaml that it stands in."
            )


def _is_known_target(key: str, value: str) -> bool:
    if key not in PLUGIN_PLACES:
        return value in TARGETS
    return value.startswith(PLUGINS) or (key == PLUGIN_PLACES[2] and value.startswith(SAMPLERS))
