"""The settings of an earlier run, for the tasks that take its checkpoint: decode and cut texts as it was trained to.

    python run.py task=summarize ckpt=runs/demo input=article.txt generation=beam

What this command line names wins; all else is what the run's checkpoint (or export) recorded. Not what Hydra left in
``.hydra``: a later task in the same directory has written its own there.
"""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from warmstart.config.schema import GROUPS, Config
from warmstart.errors import UserError
from warmstart.runs.saved_model import SavedModel

_ROLES = ("encoder", "decoder")
_OF_THIS_MACHINE = ("cache_dir", "processes")
_OF_THE_WEIGHTS = ("encoder", "decoder", "bridge")
_WHOLE = ("experiment", "debug")  # these choices may touch any group, so they stand for the whole config


def with_recorded(cfg: DictConfig, overrides: list[str], saved: SavedModel | None = None) -> DictConfig:
    """``cfg`` with the groups and seed of the run that ``cfg.ckpt`` is part of, but for what ``overrides`` name.

    ``saved`` is what ``cfg.ckpt`` names, where the caller needs it, too.
    A group that is named (``generation=beam``) is taken whole from ``cfg``, a key (``generation.num_beams=4``) alone.

    Raises:
        UserError: nothing is at ``cfg.ckpt``, its record is damaged, or of a version with other keys; or an override
            names another encoder, decoder or bridge.
    """
    keys = [override.lstrip("+").partition("=")[0].partition("@")[0] for override in overrides]
    if cfg.ckpt is None or any(key in _WHOLE for key in keys):
        return cfg
    saved = saved or SavedModel(cfg.ckpt)
    recorded, file = _record(saved), saved.config_file
    if key := _interpolation(recorded):
        raise UserError(
            f"{file}: {key} is an interpolation, which a run never records: it could read this machine's environment. "
            "The file was changed; do not use it."
        )
    here: Any = OmegaConf.to_container(cfg, enum_to_str=True)
    try:
        # By key and no deeper: a half's architecture is whole or nothing. An export records parts of two groups.
        taken = {name: here[name] | recorded[name] for name in GROUPS if name in recorded}
        if "data" in taken:
            taken["data"] |= {name: here["data"][name] for name in _OF_THIS_MACHINE}
        taken["seed"] = recorded.get("seed", here["seed"])
        merged: Any = OmegaConf.merge(OmegaConf.structured(Config), here | taken)
    except (OmegaConfBaseException, TypeError, ValueError, KeyError, AttributeError) as error:
        raise UserError(
            f"{file}: the run's settings cannot be read ({str(error).splitlines()[0]}). "
            "Name them yourself with experiment= or debug=, as on the run's own command line."
        ) from error
    for key in keys:
        group = key.split(".")[0]
        if group in _OF_THE_WEIGHTS and group in recorded and file.exists():  # an export alone has no record
            asked_at = f"{key}.name" if key == group else key
            asked, found = OmegaConf.select(cfg, asked_at), OmegaConf.select(merged, asked_at)
            if asked != found:
                raise UserError(
                    f"{asked_at}={asked} was asked for, but ckpt={cfg.ckpt} is of a run with {asked_at}={found}, which "
                    f"its weights cannot change. Leave {key}= out."
                )
        elif key == "seed" or group in GROUPS:
            OmegaConf.update(merged, key, OmegaConf.select(cfg, key), merge=False)
    settings: DictConfig = merged
    return settings


def _interpolation(value: Any, key: str = "") -> str | None:
    """The first key whose value OmegaConf would replace when it is read; None where there is none."""
    if isinstance(value, str):
        return (key or "it") if "${" in value else None
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    below = (_interpolation(inner, f"{key}.{name}" if key else str(name)) for name, inner in items)
    return next((found for found in below if found), None)


def _record(saved: SavedModel) -> dict[str, Any]:
    if not saved.is_export:
        return saved.config
    # Without a record it is not the choices of this command line that are in there.
    unknown = {role: {"name": f"{role} of {Path(saved.given).name}", "path": saved.given} for role in _ROLES}
    return unknown | saved.config
