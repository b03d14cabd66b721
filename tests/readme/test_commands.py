"""Every command of the README composes, names what exists, and has no fault that a check would find."""

import re
from pathlib import Path

import pytest

from warmstart.cli.main import report_arguments
from warmstart.tasks.check import faults

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RUNS = re.findall(r"^python run\.py ([^#\n]+)", README, flags=re.MULTILINE)
TARGETS = re.findall(r"^make (\w+)", README, flags=re.MULTILINE)


def test_there_are_commands_to_try():
    assert len(RUNS) >= 6
    assert {"demo", "test", "help"} <= set(TARGETS)


@pytest.mark.parametrize("line", RUNS)
def test_a_run_composes_without_fault(line, settings_of):
    words = [word for word in line.split() if word != "-m"]
    if "task=report" in words:
        words = [word for word in report_arguments(words) if not word.startswith("hydra")]
    for first in (0, -1):  # of a sweep, its first job and its last
        pairs = [word.partition("=") for word in words]
        assert faults(settings_of(*(f"{key}={value.split(',')[first]}" for key, _, value in pairs))) == []


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_is_there(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)


def test_the_files_it_links_are_there():
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link


def test_it_stays_short():
    assert len(README.splitlines()) < 200
