"""Compose the config of a task inside a Python process, as the command line does, and leave Hydra as it was."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from os import PathLike
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from warmstart.config.explicit import refuse_several_choices
from warmstart.config.quoting import quote, quote_texts, with_home
from warmstart.config.schema import register
from warmstart.config.shipped import config_dir
from warmstart.errors import UserError
from warmstart.runs.explain import explain

Overrides = Mapping[str, Any] | Sequence[str]
"""Options by key, ``{"trainer.max_epochs": 3}``, or words as on the command line, ``["trainer.max_epochs=3"]``."""

_SCHEMA = "schema.yaml"  # what ``register`` adds to Hydra's store of configs


@contextmanager
def composed(words: Sequence[str]) -> Iterator[DictConfig]:
    """Compose a config; within the context Hydra holds it, so that a run records its overrides and choices.

    Before and after it, Hydra's global state is the caller's, who may run a Hydra application of their own.

    Args:
        words: The overrides.

    Raises:
        UserError: An option or a choice does not exist, or a value does not fit. This holds for the whole context.
    """
    state, current = GlobalHydra.instance(), HydraConfig.instance()
    hydra, config = state.hydra, current.cfg
    try:
        with _explained():
            cfg = _compose(words, state)
            current.set_config(cfg)
            task = copy.deepcopy(cfg)
            with read_write(task), open_dict(task):
                del task["hydra"]
            yield task
    finally:
        GlobalHydra.set_instance(state)
        state.hydra, current.cfg = hydra, config


def _compose(words: Sequence[str], state: GlobalHydra) -> DictConfig:
    configs = ConfigStore.instance().repo
    of_caller = configs.get(_SCHEMA)
    state.clear()  # Hydra refuses to compose twice
    register()
    try:
        with initialize_config_dir(config_dir(), job_name="python", version_base="1.3"):
            cfg = compose("config", overrides=list(words), return_hydra_config=True)
            refuse_several_choices(cfg)
            return cfg
    finally:
        configs.pop(_SCHEMA)
        if of_caller is not None:
            configs[_SCHEMA] = of_caller


@contextmanager
def _explained() -> Iterator[None]:
    """Turn errors of Hydra and OmegaConf into the messages of the command line."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error)) from error


def words_of(overrides: Overrides | None) -> list[str]:
    """Return overrides as words of Hydra's grammar, with quotes where values need them.

    Raises:
        UserError: The overrides are a single text.
    """
    if overrides is None:
        return []
    if isinstance(overrides, str):
        raise UserError(f"overrides={overrides!r} is one text. Pass a mapping or a list of words: [{overrides!r}].")
    if isinstance(overrides, Mapping):
        # Without ++ a mapping could change only the keys that the config has already.
        overrides = [f"{'++' * isinstance(value, Mapping)}{key}={_value(value)}" for key, value in overrides.items()]
    return quote_texts(with_home(list(overrides)))


def _value(value: Any, *, inside: bool = False) -> str:
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_value(one, inside=True)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(one, inside=True) for one in value) + "]"
    if isinstance(value, str | PathLike):
        return quote(str(value)) if inside else str(value)
    return str(value)
