"""The documented line makes bash complete groups, choices and keys of the ``warmstart`` command."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INSTALL = 'eval "$(warmstart -sc install=bash)"'
# What bash sets when Tab is pressed after each line.
COMPLETE = """
for line in "$@"; do
    read -ra COMP_WORDS <<< "$line"
    COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 )); COMP_LINE=$line; COMP_POINT=${#line}
    hydra_bash_completion
    echo "${COMPREPLY[@]}"
done
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_groups_choices_and_keys(tmp_path):
    assert INSTALL in (ROOT / "docs" / "reference" / "tasks.md").read_text(encoding="utf-8")
    command = tmp_path / "warmstart"
    command.write_text(f"#!{sys.executable}\nfrom warmstart.cli.main import main\nmain()\n")
    command.chmod(0o755)
    lines = ["warmstart deco", "warmstart decoder=gpt2", "warmstart debug=tiny trainer.max_"]
    shell = ["bash", "--norc", "-c", f"{INSTALL}\n{COMPLETE}", "bash", *lines]
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(shell, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    group, choices, keys = (line.split() for line in done.stdout.splitlines())
    assert "decoder=" in group
    assert choices == ["decoder=gpt2", "decoder=gpt2_medium"]
    assert keys == ["trainer.max_epochs=", "trainer.max_minutes=", "trainer.max_steps="]
