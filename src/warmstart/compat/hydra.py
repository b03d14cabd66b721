"""Private parts of Hydra, read in 1.3.8."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra.core.utils
from hydra._internal.config_loader_impl import ConfigLoaderImpl


def wrap_composition(wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace the function that composes a config by ``wrap(function)``, once: a wrapped one (functools) stays.

    ``ConfigLoaderImpl.load_configuration``: no function of Hydra's public API is called between the command line and
    the traceback of what yaml, the codecs and Hydra's assertions raise.
    """
    compose = ConfigLoaderImpl.load_configuration
    if not hasattr(compose, "__wrapped__"):
        ConfigLoaderImpl.load_configuration = wrap(compose)  # type: ignore[method-assign]


def set_config_writer(save: Callable[[Any, str, Path], None]) -> None:
    """Let ``save(cfg, filename, output_dir)`` write the files in ``.hydra``.

    ``hydra.core.utils._save_config``: Hydra's callbacks are called before or after it, not in its place.
    """
    hydra.core.utils._save_config = save  # type: ignore[assignment]
