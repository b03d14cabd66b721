"""What is installed: one version each, with hashes, under licences that go with ours; what was not checked is said."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PACKAGE_OF = dict.fromkeys(("check-added-large-files", "detect-private-key"), "pre-commit-hooks")


def test_the_lock_says_what_the_constraints_say():
    pins = dict(line.lower().replace("_", "-").split("==") for line in (ROOT / "constraints.txt").read_text().split())
    locked, dev = hashed("requirements.lock"), hashed("requirements-dev.lock")
    assert len(locked) > 60
    assert not locked.keys() & dev.keys()
    assert {name: pins.get(name) for name in locked | dev} == locked | dev
    # torch's builds differ by index and machine; it alone is taken by its pin.
    assert pins.keys() - (locked | dev).keys() == {"torch"}


def test_the_assets_have_hashes():
    assert len(hashed("requirements-assets.txt")) == 6


def test_every_hook_runs_a_pinned_tool_of_the_dev_extra():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    dev = {re.match(r"[a-z-]+", line)[0] for line in extras["dev"]}
    repos = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    tools = [Path(hook["entry"].split()[0]) for repo in repos for hook in repo["hooks"]]
    assert {tool.parent for tool in tools} == {Path(".venv/bin")}
    packages = {PACKAGE_OF.get(tool.name, tool.name) for tool in tools}
    assert packages <= dev
    assert packages <= (hashed("requirements.lock") | hashed("requirements-dev.lock")).keys()


def hashed(file):
    """Names and versions in a lock, each with a hash."""
    text = "".join(line for line in (ROOT / file).read_text().splitlines(True) if not line.startswith("#"))
    assert "://" not in text  # no index and no host
    entries = re.split(r"\n(?=[a-z])", text.strip())
    assert all("--hash=sha256:" in entry for entry in entries)
    return dict(re.match(r"([a-z0-9.-]+)==(\S+)", entry).groups() for entry in entries)


@pytest.mark.parametrize(
    ("found", "status", "said"),
    [
        ({"dependencies": [{"name": "a", "version": "1", "vulns": []}]}, 0, "1 pins, 0 known"),
        ({"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "X-1", "fix_versions": ["2"]}]}]}, 1, "X-1"),
        ({"dependencies": [{"name": "a", "skip_reason": "absent"}]}, 3, "NOT CHECKED, 1 pins: a"),
        (None, 3, "NOT CHECKED, the service"),
    ],
)
def test_what_the_audit_did_not_check_is_no_success(found, status, said, tmp_path):
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "audit", tmp_path / ".ci")
    answer = tmp_path / "answer"
    if found is not None:
        answer.write_text(json.dumps(found))
    tool = tmp_path / ".venv" / "audit" / "bin" / "pip-audit"
    tool.parent.mkdir(parents=True)
    tool.write_text(f'#!/bin/sh\nwhile [ "$1" != --output ]; do shift; done\ncp {answer} "$2"\n')
    tool.chmod(0o755)
    ended = subprocess.run([tmp_path / ".ci" / "audit", sys.executable], capture_output=True, text=True, check=False)
    assert ended.returncode == status, ended.stderr
    assert said in ended.stdout


def test_licences():
    ended = subprocess.run([sys.executable, ROOT / ".ci" / "licences.py"], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("said", "fine"),
    [
        *(("MIT", True), ("Apache-2.0 AND MPL-2.0", True), ("GPL-3.0-only OR MIT", True), ("LGPL-2.1", True)),
        *(("MIT AND AGPL-3.0", False), ("", False), ("GPL-3.0", False), ("GNU General Public License v3", False)),
    ],
)
def test_which_licences_are_fine(said, fine, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / ".ci")
    from licences import compatible

    assert compatible(said) is fine


def test_users_do_not_install_a_tool_that_is_exempt_from_the_licence_check(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / ".ci")
    from licences import TOOLS

    assert not TOOLS & hashed("requirements.lock").keys()
    assert hashed("requirements-dev.lock").keys() >= TOOLS
