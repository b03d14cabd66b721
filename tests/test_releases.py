"""Importing warmstart warns about untested releases of libraries."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STATED = (
    "torch<2.15,>=2.6",
    "transformers<5.25,>=5.23",
    "pandas>=2",
    'peft<0.22,>=0.15; extra == "lora"',
    'warmstart[lora]; extra == "dev"',
)
IMPORT = "import sys, warmstart; assert not {'torch', 'transformers'} & set(sys.modules)"


@pytest.fixture
def imported(tmp_path):
    """Return a function that imports warmstart with these releases installed, and returns the warning."""

    def run(installed: dict[str, str], **environment: str) -> str:
        for name, release in installed.items():
            folder = tmp_path / f"{name}-{release}.dist-info"
            folder.mkdir()
            requires = "".join(f"Requires-Dist: {line}\n" for line in STATED) if name == "warmstart" else ""
            (folder / "METADATA").write_text(f"Metadata-Version: 2.3\nName: {name}\nVersion: {release}\n{requires}")
        path = os.pathsep.join([str(tmp_path), str(ROOT / "src")])
        command = [sys.executable, "-c", IMPORT]
        environment = os.environ | {"PYTHONPATH": path, "PYTHONWARNINGS": "default"} | environment
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stderr

    return run


TRIED = {"warmstart": "0.1.0", "torch": "2.13.0+cpu", "transformers": "5.24.0", "peft": "0.21.2", "pandas": "99.0"}


def test_tested_releases_give_no_warning(imported):
    assert imported(TRIED | {"pandas": "1.0"}) == ""  # no upper bound, no warning


@pytest.mark.parametrize("release", ["5.25.0", "5.25.0.dev0", "5.22.1", "6.0", "mine"])
def test_an_untested_release_is_named_with_what_to_install(release, imported):
    warning = imported(TRIED | {"transformers": release})
    assert f"warmstart was not tested with transformers {release}." in warning
    assert "pip install 'transformers<5.25,>=5.23'" in warning


def test_several_releases_are_one_warning(imported):
    warning = imported(TRIED | {"torch": "2.15.0", "peft": "1.0"})
    assert warning.count("was not tested with") == 1
    assert "torch 2.15.0, peft 1.0" in warning
    assert "pip install 'torch<2.15,>=2.6' 'peft<0.22,>=0.15'" in warning


def test_only_the_first_rank_warns(imported):
    assert imported(TRIED | {"torch": "2.15.0"}, LOCAL_RANK="1") == ""


def test_the_pins_are_within_the_bounds():
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    pins = dict(line.lower().split("==") for line in (ROOT / "constraints.txt").read_text().split())
    for one in map(Requirement, lines):
        if one.name in pins:
            assert one.specifier.contains(pins[one.name]), one
