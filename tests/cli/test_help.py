"""``--help`` fits on one screen; ``--help-all`` describes every choice and option; ``--version`` is ours."""

import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

from warmstart import __version__
from warmstart.cli.help import first_comment
from warmstart.cli.main import config_dir
from warmstart.config.option import Bounds
from warmstart.config.schema import GROUPS, GROUPS_OF_MANY, OPTIONS, TASKS

CONF = Path(config_dir())


@functools.cache
def printed(*words, program="run.py"):
    """What a command prints, in a process of its own because ``main()`` changes its process."""
    code = f"import sys; sys.argv = {[program, *words]!r}; from warmstart.cli.main import main; main()"
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    return outcome.stdout


def choices():
    return [(path.parent.name, path.stem) for path in CONF.glob("*/*.yaml")]


def test_help_fits_on_one_screen_and_names_every_task_group_and_choice():
    page = printed("--help")
    lines = page.splitlines()
    assert len(lines) <= 50
    assert max(map(len, lines)) <= 100
    assert "hydra" not in page.lower().replace("--hydra-help", "")
    named = [re.match(r"  (\w+) ", line) for line in lines]
    found = {line[1] for line in named if line}
    assert found >= {*TASKS, *GROUPS, *GROUPS_OF_MANY}
    for group, choice in choices():
        assert re.search(rf"^  {group}\s[^=]*[ ]{choice}\b", page, re.MULTILINE), (group, choice)
    assert "translation, bertsum/..., modern/..., rothe/..., studies/..." in page
    for default in ("bert*", "gpt2*", "cnn_dailymail*", "adamw*"):
        assert default in page
    assert "--help-all" in page


def test_the_examples_of_help_are_valid_commands(settings_of):
    page = printed("--help")
    examples = re.findall(r"^  python run.py (.+?)(?:  +#.*)?$", page, re.MULTILINE)
    assert len(examples) == 5
    for words in examples:
        assert settings_of(*(re.sub(r",\S+", "", word) for word in words.split() if word != "-m"))


def test_help_of_the_installed_command_names_that_command():
    page = printed("--help", program="/usr/local/bin/warmstart")
    assert "Usage: warmstart [task=TASK]" in page
    assert "python run.py" not in page


def test_help_all_describes_every_choice_and_every_option():
    page = printed("--help-all")
    assert max(map(len, page.splitlines())) <= 100
    together = " ".join(page.split())
    for group, choice in choices():
        comment = first_comment(CONF / group / f"{choice}.yaml")
        assert comment
        assert f"{choice} {comment}" in together
    assert " rothe/bert2bert BERT2BERT of Rothe" in together
    assert "(Devlin et al. 2019) " in together
    assert "(See et al. 2017). Columns:" in together
    assert " studies/warm_start/both Study" in together
    assert " rothe/data/" not in page
    for key, one in OPTIONS.items():
        if key.startswith("decoder."):
            continue
        entry = re.search(rf"^{re.escape(key)}\n((?:    .+\n?)+)", page, re.MULTILINE)[1]
        facts = " ".join(entry.split())
        assert facts.startswith(f"{one.type}; ")
        assert one.bounds == Bounds() or str(one.bounds) in facts
        assert " ".join(one.doc.split()) in facts
    assert "decoder has the same options as encoder." in page
    assert "list of float; default [0.9, 0.999]" in page


def test_help_lists_choices_in_the_users_own_folder(tmp_path):
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "mine.yaml").write_text("name: mine\n")
    (tmp_path / "colour").mkdir()
    (tmp_path / "colour" / "red.yaml").write_text("a: 1\n")
    page = printed("--help", "--config-dir", str(tmp_path))
    assert " mine," in page
    assert "  colour      red" in page


def test_version_is_ours():
    first, second = printed("--version").splitlines()
    assert first == f"warmstart {__version__}"
    assert re.fullmatch(r"python [\d.]+, torch [\d.]+\S*, transformers [\d.]+\S*, lightning [\d.]+\S*", second)


def test_hydra_help_stays_available():
    assert "--multirun" in printed("--hydra-help")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("decoder=gpt3", "Did you mean decoder=gpt2?"),
        ("trainer.max_step=3", "Did you mean:\n  trainer.max_steps"),
        ("encoder=hf", "encoder=hf needs a checkpoint"),
    ],
)
def test_a_mistake_ends_in_a_suggestion_and_status_two(word, expected, run_py, tmp_path):
    outcome = run_py(word, cwd=tmp_path)
    assert outcome.returncode == 2
    assert outcome.stderr.startswith("warmstart: ")
    assert expected in outcome.stderr
    assert "search path" not in outcome.stderr
    assert outcome.stdout == ""
