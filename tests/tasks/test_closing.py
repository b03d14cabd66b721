"""What a scored run prints at its end."""

import sys
from pathlib import Path

from warmstart.data.sources.base import Example
from warmstart.tasks.closing import print_examples, print_next_commands

EXAMPLES = [Example(str(i), f"Ana Ruiz has {i} boats. " + "She sails. " * 60, f"{i} boats") for i in range(50)]
SUMMARIES = [f"boats of ana ruiz: {i}" for i in range(50)]


def shown(capsys, settings, *, restore=True):
    print_examples(settings, EXAMPLES, SUMMARIES, "validation", restore=restore)
    return capsys.readouterr().out


def test_examples_are_drawn_by_seed_and_shown_in_the_case_of_the_source(settings_of, capsys):
    printed = shown(capsys, settings_of("evaluation.show_examples=3", "seed=5"))
    assert printed.count("source     Ana Ruiz has") == printed.count("reference  ") == 3
    assert printed.count("summary    boats of Ana Ruiz: ") == 3
    assert max(map(len, printed.splitlines())) < 330
    assert printed == shown(capsys, settings_of("evaluation.show_examples=3", "seed=5"))
    assert printed != shown(capsys, settings_of("evaluation.show_examples=3", "seed=6"))
    assert "of ana ruiz" in shown(capsys, settings_of("evaluation.show_examples=3"), restore=False)


def test_no_examples_are_shown_unless_requested(settings_of, capsys):
    assert shown(capsys, settings_of()) == ""


def test_more_examples_than_there_are_shows_all(settings_of, capsys):
    assert shown(capsys, settings_of("evaluation.show_examples=99")).count("reference  ") == 50


def test_the_next_commands_name_the_run_and_the_program(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["../warmstart/run.py"])
    print_next_commands(Path("runs/scored"), "runs/mine")
    printed = capsys.readouterr().out
    assert "python run.py task=summarize ckpt=runs/mine" in printed
    assert "task=report 'runs=[runs/scored]'" in printed
    monkeypatch.setattr(sys, "argv", ["bin/warmstart"])
    print_next_commands(Path("runs/mine"), "runs/mine")
    assert "  warmstart task=demo ckpt=runs/mine" in capsys.readouterr().out
