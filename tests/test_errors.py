"""Messages name commands that work."""

import re
import tomllib
from pathlib import Path

from warmstart.errors import install_extra

ROOT = Path(__file__).parents[1]
SOURCES = [file.read_text(encoding="utf-8") for file in sorted((ROOT / "src").rglob("*.py"))]


def test_an_extra_is_installed_from_the_clone():
    assert install_extra("lora") == "Install the extra in the clone of warmstart: pip install '.[lora]'"


def test_messages_name_only_extras_that_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {name for text in SOURCES for name in re.findall(r"install_extra\('(\w+)'\)", text)}
    assert named >= {"lora", "gguf", "demo", "serve", "ray", "search"}
    assert named <= set(extras)
    assert not [text for text in SOURCES if "warmstart[" in text]  # no index has the package yet
