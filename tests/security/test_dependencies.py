"""What users install: one version each, with hashes, under licences that go with ours."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_lock_says_what_the_constraints_say():
    pins = dict(line.lower().replace("_", "-").split("==") for line in (ROOT / "constraints.txt").read_text().split())
    text = (ROOT / "requirements.lock").read_text()
    entries = re.split(r"\n(?=[a-z])", text.strip())
    locked = dict(re.match(r"([a-z0-9.-]+)==(\S+)", entry).groups() for entry in entries)
    assert len(locked) > 60
    assert {name: pins.get(name) for name in locked} == locked
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "torch" not in locked
    assert "://" not in text  # no index and no host


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
