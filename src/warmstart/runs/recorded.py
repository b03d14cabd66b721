"""Read the settings of an earlier run from its checkpoint, so that other tasks treat texts in the same way.

    python run.py task=summarize ckpt=runs/demo input=article.txt generation=beam

The command line overrides recorded settings. They come from the checkpoint or export, not from ``.hydra``, which a
later task in the same directory overwrites.
"""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from warmstart.config.schema import GROUPS, OPTIONS, Config
from warmstart.errors import UserError
from warmstart.runs.saved_model import SavedModel

_ROLES = ("encoder", "decoder")
_OF_THIS_MACHINE = ("cache_dir", "processes")
_OF_THE_WEIGHTS = ("encoder", "decoder", "bridge")
# How the weights were trained to read and write: options of the data that belong to the model.
_OF_TEXTS = ("data.prompt", "data.prompt_as_chat", "data.start_tokens", "data.source_form", "data.target_form")
# How the model reads a text: also for another data set, unless the command line names the option.
_READING = ("data.source_windows", "data.window_overlap", "data.truncation", *_OF_TEXTS)
_WHOLE = ("experiment", "debug")  # these can change any group, so nothing is taken from the run


def with_recorded(cfg: DictConfig, overrides: list[str], saved: SavedModel | None = None) -> DictConfig:
    """Return ``cfg`` with the settings and seed of the run that ``cfg.ckpt`` names.

    Overridden values stay: a whole group for ``generation=beam``, one key for ``generation.num_beams=4``. Windows,
    truncation and prompt are taken from the run even if ``data=`` names another data set.

    Args:
        cfg: the composed config of this task.
        overrides: the overrides of the command line.
        saved: the model that ``cfg.ckpt`` names, if the caller has opened it.

    Raises:
        UserError: ``cfg.ckpt`` does not exist, its settings are damaged or of a version with other keys, or an override
            changes the encoder, the decoder or the bridge.
    """
    keys = [override.lstrip("+").partition("=")[0].partition("@")[0] for override in overrides]
    if cfg.ckpt is None or any(key in _WHOLE for key in keys):
        return cfg
    saved = saved or SavedModel(cfg.ckpt)
    recorded, file = _record(saved), saved.config_file
    if key := _interpolation(recorded):
        raise UserError(
            f"{file}: {key} is an interpolation, which could read this machine's environment. warmstart never writes "
            "one, so somebody has changed the file. Do not use it."
        )
    here: Any = OmegaConf.to_container(cfg, enum_to_str=True)
    try:
        # A shallow merge, so that a submodel's architecture is replaced as a whole. An export records only some keys.
        taken = {name: here[name] | recorded[name] for name in GROUPS if name in recorded}
        if "data" in taken:
            taken["data"] |= {name: here["data"][name] for name in _OF_THIS_MACHINE}
        taken["seed"] = recorded.get("seed", here["seed"])
        merged: Any = OmegaConf.merge(OmegaConf.structured(Config), here | taken)
    except (OmegaConfBaseException, TypeError, ValueError, KeyError, AttributeError) as error:
        raise UserError(
            f"{file}: the run's settings cannot be read ({str(error).splitlines()[0]}). Set experiment= or debug= as "
            "on the command line of the run; its recorded settings are then not read."
        ) from error
    start = {
        key: recorded["data"].get(key.partition(".")[2], OPTIONS[key].default)
        for key in _OF_TEXTS
        if "data" in recorded
    }
    for key in keys:
        group = key.split(".")[0]
        if key in start:
            _refuse_other(key, OmegaConf.select(cfg, key), start[key], cfg.ckpt)
        if group in _OF_THE_WEIGHTS and group in recorded and file.exists():  # some exports have no recorded settings
            option = f"{key}.name" if key == group else key
            requested, found = OmegaConf.select(cfg, option), OmegaConf.select(merged, option)
            _refuse_other(option, requested, found, cfg.ckpt, key)
        elif key == "seed" or group in GROUPS:
            OmegaConf.update(merged, key, OmegaConf.select(cfg, key), merge=False)
    for key in _READING:
        name = key.partition(".")[2]
        if "data" in keys and key not in keys and name in recorded.get("data", {}):
            OmegaConf.update(merged, key, recorded["data"][name], merge=False)
    settings: DictConfig = merged
    return settings


def _refuse_other(option: str, requested: Any, found: Any, ckpt: str, key: str | None = None) -> None:
    """Raise if another value was requested than that of the training."""
    if requested != found:
        raise UserError(
            f"{option}={requested} was requested, but ckpt={ckpt} was trained with {option}={found}. Leave "
            f"{key or option}= out."
        )


def _interpolation(value: Any, key: str = "") -> str | None:
    """Return the first key whose value is an OmegaConf interpolation (``${...}``), or None."""
    if isinstance(value, str):
        return (key or "it") if "${" in value else None
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    below = (_interpolation(inner, f"{key}.{name}" if key else str(name)) for name, inner in items)
    return next((found for found in below if found), None)


def _record(saved: SavedModel) -> dict[str, Any]:
    if not saved.is_export:
        return saved.config
    # An export without recorded settings must not appear to hold the encoder and decoder of this command line.
    unknown = {role: {"name": f"{role} of {Path(saved.given).name}", "path": saved.given} for role in _ROLES}
    return unknown | saved.config
