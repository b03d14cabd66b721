"""The config files that come with the package."""

from pathlib import Path

import yaml


def config_dir() -> str:
    """Return the path of conf/ in the checkout, or in the installed wheel."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parents[1] / "conf"
    return str(checkout if (checkout / "config.yaml").exists() else package / "conf")


def default_choices() -> dict[str, str | None]:
    """Return the choice of each group in ``conf/config.yaml``."""
    config = yaml.safe_load((Path(config_dir()) / "config.yaml").read_text(encoding="utf-8"))
    return {group: choice for one in config["defaults"] if isinstance(one, dict) for group, choice in one.items()}
