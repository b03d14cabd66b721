"""The committed page of all options equals the output of its command."""

import subprocess
import sys
from pathlib import Path

from warmstart.config.reference import COMMAND
from warmstart.config.schema import OPTIONS

PAGE = Path("docs") / "reference" / "options.md"
ROOT = Path(__file__).parents[2]


def test_the_page_equals_the_output_of_its_command():
    written = subprocess.run(
        [sys.executable, *COMMAND.split()[1:]], capture_output=True, text=True, encoding="utf-8", check=True
    ).stdout
    committed = (ROOT / PAGE).read_text(encoding="utf-8")
    assert committed == written, f"An option has changed. Run: {COMMAND} > {PAGE}"
    assert max(map(len, written.splitlines())) <= 120


def test_every_option_has_an_entry():
    committed = (ROOT / PAGE).read_text(encoding="utf-8")
    for key in OPTIONS:
        assert f"### `{key.replace('decoder.', 'encoder.') if key.startswith('decoder.') else key}`\n" in committed
