"""What a fit shows while it runs."""

import io
import logging

from rich.console import Console
from written_training import TOTAL, run

from warmstart.config.training import TrainerSettings
from warmstart.training.callbacks import progress
from warmstart.training.callbacks.checkpoints import ended_early
from warmstart.training.callbacks.progress import FitProgress, duration


def test_without_a_terminal_lines_are_logged(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    shown = io.StringIO()
    bar = FitProgress(TrainerSettings(), TOTAL, Console(file=shown))
    with caplog.at_level("INFO", progress.__name__):
        run(tmp_path, tmp_path / "cache", callbacks=[bar], samples=2)
    lines = [record.getMessage() for record in caplog.records if record.name == progress.__name__]
    assert lines[0].startswith(f"step 1 of {TOTAL}")
    assert lines[0].endswith(" left")
    assert lines[-1].startswith(f"step {TOTAL} of {TOTAL}")
    assert "loss " in lines[-1]
    assert len({line.partition(" · ")[0] for line in lines}) == len(lines)
    assert shown.getvalue() == ""


def test_a_terminal_has_the_bar_and_the_log_file_the_lines(tmp_path, caplog):
    handler = logging.FileHandler(tmp_path / "cli.log")
    logging.getLogger().addHandler(handler)
    shown = io.StringIO()
    bar = FitProgress(TrainerSettings(), TOTAL, Console(file=shown, force_terminal=True, width=120))
    try:
        run(tmp_path, tmp_path / "cache", callbacks=[bar], samples=0)
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
    assert "step " in shown.getvalue()
    assert f"step {TOTAL} of {TOTAL}" in (tmp_path / "cli.log").read_text()
    assert not [record for record in caplog.records if record.name == progress.__name__]


def test_the_time_left_is_that_of_the_limit_that_comes_first():
    bar = FitProgress(TrainerSettings(max_minutes=2.0), 100)
    assert bar._left(600.0, now=60.0) == "1 min left (trainer.max_minutes)"
    assert bar._left(30.0, now=60.0) == "30 s left"
    assert FitProgress(TrainerSettings(), 100)._left(600.0, now=60.0) == "10 min left"
    assert (duration(3900), duration(12)) == ("1 h 05 min", "12 s")


def test_the_end_names_what_ended_the_fit_before_its_last_step(tmp_path):
    settings = TrainerSettings(max_minutes=1e-6)
    _, by_clock = run(tmp_path / "clock", tmp_path / "cache", samples=0, max_minutes=settings.max_minutes)
    reason = ended_early(by_clock, settings, TOTAL)["ended_early"]
    assert f"after {by_clock.global_step} of {TOTAL} steps" in reason
    assert "at trainer.max_minutes=1e-06" in reason
    assert ended_early(by_clock, settings, by_clock.global_step) == {}
