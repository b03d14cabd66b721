"""Private APIs of Hydra, checked in 1.3.8."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra.core.utils
from hydra._internal.config_loader_impl import ConfigLoaderImpl


def wrap_composition(wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace the function that composes a config by ``wrap(function)``, unless it is wrapped already.

    Replaces ``ConfigLoaderImpl.load_configuration``, which raises the errors of yaml, codecs and Hydra's assertions; no
    public function can catch them.

    Args:
        wrap: A decorator that uses ``functools.wraps``.
    """
    compose = ConfigLoaderImpl.load_configuration
    if not hasattr(compose, "__wrapped__"):
        ConfigLoaderImpl.load_configuration = wrap(compose)  # type: ignore[method-assign]


def set_config_writer(save: Callable[[Any, str, Path], None]) -> None:
    """Write the files in ``.hydra`` with ``save(cfg, filename, output_dir)``.

    Replaces ``hydra.core.utils._save_config``: Hydra's callbacks run before or after it, but cannot replace it.
    """
    hydra.core.utils._save_config = save  # type: ignore[assignment]
