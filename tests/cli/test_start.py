"""A start imports nothing heavy before the config is composed, and nothing twice in one process."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"torch", "transformers", "lightning", "tokenizers", "datasets", "numpy", "pandas", "wandb"}
RUN = Path(__file__).parents[2] / "run.py"


def imported(*words, cwd):
    """Top-level packages that ``run.py`` imports in a process of its own."""
    command = [sys.executable, "-X", "importtime", RUN, *words]
    said = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=300).stderr
    names = re.findall(r"^import time: .*\| +(\S+)$", said, re.MULTILINE)
    assert "warmstart.cli.main" in names
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--help-all"],
        ["--version"],
        ["--cfg", "job"],
        ["--info", "defaults"],
        ["task=nope"],
        ["task=check", "encoder=nope"],
        ["task=check", "optim.encoder_rate=abc"],
        ["task=check", "device=b200"],
        ["-m", "--cfg", "job", "seed=1,2"],
    ],
)
def test_composing_a_config_imports_nothing_heavy(words, tmp_path):
    assert not imported(*words, cwd=tmp_path) & HEAVY


def test_a_check_does_not_import_training_code(tmp_path):
    found = imported("task=check", "debug=tiny", cwd=tmp_path)
    assert {"torch", "transformers"} <= found
    assert "lightning" not in found


@pytest.mark.slow
def test_the_second_job_of_a_sweep_imports_nothing(tmp_path):
    command = [sys.executable, Path(__file__).with_name("jobs_import.py")]
    words = ["-m", "debug=tiny", "seed=1,2", f"data.cache_dir={tmp_path / 'cache'}"]
    outcome = subprocess.run([*command, *words], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert outcome.returncode == 0, outcome.stderr[-3000:]
    (before, first), (between, second) = re.findall(r"^modules (\d+) (\d+)$", outcome.stdout, re.MULTILINE)
    assert int(first) > int(before) + 500
    assert between == first == second
