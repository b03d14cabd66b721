"""The settings of an earlier run, for the tasks that take its checkpoint: decode and cut texts as it was trained to.

    python run.py task=summarize ckpt=runs/demo input=article.txt generation=beam

What this command line names wins; all else is what the run recorded.
"""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from warmstart.app.schema import GROUPS, Config
from warmstart.errors import UserError

RECORDS = ("run_config.yaml", ".hydra/config.yaml")  # of an export, of a run directory
_WHOLE = ("experiment", "debug")  # these choices may touch any group, so they stand for the whole config


def with_recorded(cfg: DictConfig, overrides: list[str]) -> DictConfig:
    """``cfg`` with the groups of the run that ``cfg.ckpt`` is part of, but for what ``overrides`` name.

    Raises:
        UserError: the record is damaged or of a version with other keys.
    """
    keys = [override.lstrip("+~").partition("=")[0] for override in overrides]
    record = None if cfg.ckpt is None else _record(Path(cfg.ckpt))
    if record is None or any(key in _WHOLE for key in keys):
        return cfg
    try:
        recorded = OmegaConf.to_container(OmegaConf.load(record))
        assert isinstance(recorded, dict)
        here = OmegaConf.to_container(cfg, enum_to_str=True)
        assert isinstance(here, dict)
        # Replaced and not merged: a half's architecture is whole or nothing. An export records parts of two groups.
        taken = {name: recorded[name] for name in ("seed", *GROUPS) if name in recorded}
        if record.name == RECORDS[0]:
            taken = {name: here[name] | value for name, value in taken.items()}
        merged = OmegaConf.merge(OmegaConf.structured(Config), here | taken)
    except Exception as error:  # yaml's, OmegaConf's and the file system's have no common parent
        raise UserError(
            f"{record}: the run's settings cannot be read ({str(error).splitlines()[0]}). "
            "Name them yourself with experiment= or debug=, as on the run's own command line."
        ) from error
    assert isinstance(merged, DictConfig)
    for key in keys:
        name = key.split("@")[0]
        if name.split(".")[0] in GROUPS or name == "seed":
            OmegaConf.update(merged, name, OmegaConf.select(cfg, name), merge=False)
    return merged


def _record(ckpt: Path) -> Path | None:
    homes = [ckpt, *ckpt.parents[:2]] if ckpt.is_file() else [ckpt]
    return next((home / name for home in homes for name in RECORDS if (home / name).is_file()), None)
