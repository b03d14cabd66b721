"""The page holds what it shows, no more than it may, and nothing that a text in it could do."""

import json
import subprocess
import sys
from pathlib import Path

from warmstart.report.collect import collect
from warmstart.report.page import render

RUN = Path(__file__).parents[2] / "run.py"


def test_texts_are_escaped_and_can_be_left_out(write_run, attack, tmp_path):
    write_run("a", text=attack)
    write_run("b", encoder=attack)
    write_run("c", status="failed", text=attack)
    page = render(collect([tmp_path]), title=attack)
    assert attack not in page
    assert "<img" not in page
    assert "&lt;script&gt;document.title" in page
    assert 'http-equiv="Content-Security-Policy" content="default-src \'none\'' in page
    without = render(collect([tmp_path]), title="t", texts=False)
    assert "Left out of this page." in without
    assert len(without) < len(page)


def test_twenty_runs_of_two_hundred_samples_stay_under_five_megabytes(write_run, tmp_path):
    words = [f"word{i * 7919 % 100_003}" for i in range(120_000)]

    def text(place: int, length: int) -> str:
        return " ".join(words[place % 119_000 :][:length])

    for run in range(20):
        folder = write_run(str(run), encoder=f"e{run}", scores=tuple(float(i % 60) for i in range(200)))
        rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
        for i, row in enumerate(rows):  # one test set, and summaries of each run's own
            row |= {"document": text(i * 503, 400), "reference": text(i * 503 + 7, 50)}
            row["prediction"] = text((run * 200 + i) * 29, 60)
        (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len(render(collect([tmp_path]), title="t")) < 5e6


def test_the_task_writes_a_page_and_no_run_folder(write_run, tmp_path):
    write_run("a")
    write_run("b", status="failed")
    command = [sys.executable, RUN, "task=report", "sweep=sweep"]
    outcome = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert outcome.returncode == 0, outcome.stderr
    assert "2 runs (1 complete, 1 failed)" in outcome.stdout
    assert (tmp_path / "sweep" / "report.html").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sweep"]
    outcome = subprocess.run([*command[:-1], "sweep=no"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert outcome.returncode == 2
    assert "no such folder" in outcome.stderr
    (tmp_path / "multirun").mkdir()
    (tmp_path / "sweep").rename(tmp_path / "multirun" / "sweep")  # where a sweep of this name lies, beside runs
    outcome = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert outcome.stdout.startswith("multirun/sweep/report.html: 2 runs"), outcome.stderr


def test_a_report_imports_neither_torch_nor_transformers():
    code = "import sys, warmstart.report.page; assert not {'torch', 'transformers', 'lightning'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_rows_of_different_test_examples_are_not_set_beside_one_baseline(write_run, tmp_path):
    write_run("a")
    write_run("b", encoder="roberta")
    page = render(collect([tmp_path]), title="t")
    assert "judged on different test examples" not in page
    assert page.count("(baseline)") == 1
    write_run("c", encoder="electra", lead=12.0)
    page = render(collect([tmp_path]), title="t")
    assert "judged on different test examples" in page
    assert page.count("(baseline)") == 2
    assert "lead1 beside encoder=electra (baseline)" in page
