"""Tell the options that the user has set from those that still have their defaults.

An option counts as set if the command line names it, if a choice that the user made sets it (``generation=beam`` sets
``generation.num_beams``), or if its value is not the default. The user makes a choice on the command line, or in a
config file of their own, where it differs from the choice in ``conf/config.yaml``.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig

from warmstart.config.schema import GROUPS, OPTIONS, Config
from warmstart.config.shipped import default_choices
from warmstart.errors import UserError

WHOLE = ("experiment", "debug")  # a choice of these sets the values of a whole run
_LOCAL = "file://"


@dataclass(frozen=True)
class CommandLine:
    """What Hydra composed a config from."""

    overrides: Sequence[str]
    """The overrides of the run, or of a job of a sweep."""
    choices: Mapping[str, str | None]
    """The choice of each group."""
    folders: Sequence[Path]
    """Folders of config files."""

    @classmethod
    def of(cls, hydra: Any) -> "CommandLine":
        """Read the ``hydra`` node of a composed config."""
        sources = [str(source.path) for source in hydra.runtime.config_sources if source.schema == "file"]
        choices = {str(group): choice for group, choice in hydra.runtime.choices.items()}
        return cls(list(hydra.overrides.task), choices, [Path(path.removeprefix(_LOCAL)) for path in sources])

    @classmethod
    def current(cls) -> "CommandLine | None":
        """Return the command line of this process; None outside of a Hydra application."""
        return cls.of(HydraConfig.get()) if HydraConfig.initialized() else None

    @property
    def names_whole_run(self) -> bool:
        """Whether an experiment or a debug choice sets the values of the whole run."""
        return any(self.choices.get(group) for group in WHOLE)


def refuse_several_choices(cfg: Any) -> None:
    """Refuse ``encoder=[bert,roberta]``, which Hydra composes on top of each other without recording a choice.

    Args:
        cfg: The composed config, with its ``hydra`` node.

    Raises:
        UserError: A group of one choice has several.
    """
    for word in cfg.hydra.overrides.task:
        group, _, value = word.lstrip("+").partition("=")
        if value.startswith("[") and group in default_choices() and group not in cfg.hydra.runtime.choices:
            raise UserError(
                f"{word} was requested, but a run has one {group}. Name one, or start a run for each: "
                f"python run.py -m {group}={value.strip('[]')}"
            )


def explicit_options(settings: Config, line: CommandLine) -> frozenset[str]:
    """Return the keys of the options that the user has set.

    Args:
        settings: The composed config.
        line: What it was composed from.
    """
    named, groups = set[str](), set[str]()
    for word in line.overrides:
        key = word.lstrip("+~").partition("=")[0].partition("@")[0]
        if key in line.choices:
            groups.add(key)
        else:
            named |= {one for one in OPTIONS if one == key or one.startswith(f"{key}.")}
    of_defaults, shipped = dict[str, Any](), default_choices()
    for group, choice in line.choices.items():
        if choice is None or group.startswith("hydra/"):
            continue
        values = dict(_values(line, group, choice))
        if group in groups or choice != shipped.get(group):
            named |= values.keys() & OPTIONS.keys()
        else:
            of_defaults |= values
    changed = {
        key
        for key, one in OPTIONS.items()
        if (value := _value(settings, key)) != one.default and value != of_defaults.get(key, one.default)
    }
    return frozenset(named | changed)


def _values(line: CommandLine, group: str, choice: str) -> Iterator[tuple[str, Any]]:
    """Yield the options that the file of a choice sets, with their values."""
    for folder in line.folders:
        file = folder / group / f"{choice}.yaml"
        if file.is_file():
            found = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
            found.pop("defaults", None)
            yield from _flat(found, f"{group}." if group in GROUPS else "")
            return


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and key not in OPTIONS:
            yield from _flat(value, f"{key}.")
        else:
            yield key, value


def _value(settings: Config, key: str) -> Any:
    value: Any = settings
    for name in key.split("."):
        value = getattr(value, name)
    return value.name if isinstance(value, Enum) else value
