"""metrics.csv grows columns, survives a resume, and is always readable."""

import csv

from tiny_training import fit

from warmstart.training.loggers.csv import MetricsCsv


def read(run_dir):
    with (run_dir / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_new_metrics_become_columns(tmp_path):
    log = MetricsCsv(tmp_path / "run")
    log.log_metrics({"a": 1.5, "epoch": 0.0}, 3)
    log.log_metrics({"b": 2.0}, 4)
    log.log_metrics({"test/c": 3.0})
    rows = read(tmp_path / "run")
    assert [(row["step"], row["a"], row["b"], row["test/c"]) for row in rows] == [
        ("3", "1.5", "", ""),
        ("4", "", "2.0", ""),
        ("", "", "", "3.0"),
    ]
    assert rows[0]["epoch"] == "0"


def test_a_resumed_run_appends_and_replaces_the_steps_it_takes_again(tmp_path):
    log = MetricsCsv(tmp_path)
    for step in range(4):
        log.log_metrics({"a": step}, step)
    log = MetricsCsv(tmp_path)
    log.log_metrics({"a": 20, "b": 1}, 2)
    assert [(row["step"], row["a"]) for row in read(tmp_path)] == [("0", "0.0"), ("1", "1.0"), ("2", "20.0")]


def test_an_incomplete_row_of_a_killed_run_is_dropped(tmp_path):
    MetricsCsv(tmp_path).log_metrics({"a": 1.5}, 10)
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("1")  # of step 11 and a loss
    MetricsCsv(tmp_path).log_metrics({"a": 2.5}, 11)
    assert [(row["step"], row["a"]) for row in read(tmp_path)] == [("10", "1.5"), ("11", "2.5")]


def test_a_fit_leaves_its_curves(tmp_path):
    fit(tmp_path, 2, 1, loggers=[MetricsCsv(tmp_path)])
    rows = read(tmp_path)
    assert [row["step"] for row in rows if row["train/loss"]] == ["0", "1", "2", "3"]
    assert [row["step"] for row in rows if row["validation/loss"]] == ["3"]


def test_the_test_of_a_resumed_fit_appears_once(tmp_path):
    for _ in range(2):
        log = MetricsCsv(tmp_path)
        log.log_metrics({"a": 1}, 0)
        log.log_metrics({"test/c": 3.0})
    MetricsCsv(tmp_path).log_metrics({"test/c": 3.0})
    assert [(row["step"], row["test/c"]) for row in read(tmp_path)] == [("0", ""), ("", "3.0")]
