"""The page contains its data, within limits, and escapes every text."""

import base64
import gzip
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from warmstart.report.collect import collect
from warmstart.report.page import render

RUN = Path(__file__).parents[2] / "run.py"


def data_of(page):
    packed = re.search(r'id="data">([^<]*)<', page).group(1)
    return json.loads(gzip.decompress(base64.b64decode(packed)))


def test_texts_are_escaped_and_can_be_omitted(write_run, attack, tmp_path):
    write_run("a", text=attack)
    write_run("b", encoder=attack)
    write_run("c", status="failed", text=attack)
    page = render(collect([tmp_path]), title=attack)
    assert attack not in page
    assert "<img" not in page
    assert "&lt;script&gt;document.title" in page
    assert 'http-equiv="Content-Security-Policy" content="default-src \'none\'' in page
    without = render(collect([tmp_path]), title="t", texts=False)
    assert "Not included in this page." in without
    assert len(without) < len(page)


@pytest.mark.slow
def test_twenty_runs_of_two_hundred_samples_stay_under_five_megabytes(write_run, tmp_path):
    words = [f"word{i * 7919 % 100_003}" for i in range(120_000)]

    def text(place: int, length: int) -> str:
        return " ".join(words[place % 119_000 :][:length])

    for run in range(20):
        folder = write_run(str(run), encoder=f"e{run}", scores=tuple(float(i % 60) for i in range(200)))
        rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
        for i, row in enumerate(rows):  # one test set, with different summaries in each run
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
    (tmp_path / "sweep").rename(tmp_path / "multirun" / "sweep")  # the default folder of a sweep of this name
    outcome = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert outcome.stdout.startswith("multirun/sweep/report.html: 2 runs"), outcome.stderr


def test_a_report_imports_neither_torch_nor_transformers():
    code = "import sys, warmstart.report.page; assert not {'torch', 'transformers', 'lightning'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_rows_with_different_test_examples_have_separate_baselines(write_run, tmp_path):
    write_run("a")
    write_run("b", encoder="roberta")
    page = render(collect([tmp_path]), title="t")
    assert "evaluated on different test examples" not in page
    assert page.count("(baseline)") == 1
    write_run("c", encoder="electra", text="c d")  # by chance with the same scores
    page = render(collect([tmp_path]), title="t")
    assert "evaluated on different test examples" in page
    assert page.count("(baseline)") == 2
    assert "lead1 for encoder=electra (baseline)" in page


def test_a_run_with_more_baselines_stands_next_to_one_of_an_earlier_release(write_run, tmp_path):
    write_run("old")
    folder = write_run("new", encoder="roberta")
    result = json.loads((folder / "result.json").read_text())
    lead = result["baselines"]["lead1"]
    result["baselines"] |= {"copula": lead, "most_frequent": lead | {"rouge1": 7.25, "training_examples": 9}}
    (folder / "result.json").write_text(json.dumps(result))
    page = render(collect([tmp_path]), title="t")
    for name in ("lead1", "copula rule", "most frequent target"):
        assert f"<th><button>over {name}</button></th>" in page
    assert page.index("over lead1") < page.index("over copula rule")
    assert page.count("(baseline)") == 3
    assert "most frequent target (baseline)" in page


def test_rounding_in_a_mean_over_seeds_does_not_separate_baselines(write_run, tmp_path):
    lead = 10.7
    assert statistics.fmean([lead] * 3) != lead
    for seed in (1, 2, 3):
        write_run(f"a{seed}", seed=seed, lead=lead)
    write_run("b", encoder="roberta", lead=lead)
    for examples in ("with", "without"):
        page = render(collect([tmp_path]), title="t")
        assert "evaluated on different test examples" not in page, examples
        assert page.count("(baseline)") == 1
        for path in tmp_path.rglob("predictions.jsonl"):
            path.unlink()
    write_run("c", encoder="electra", lead=12.0)
    assert "evaluated on different test examples" in render(collect([tmp_path]), title="t")


def test_omitted_runs_and_scores_are_stated(write_run, tmp_path):
    write_run("fit", finished=1, nll=(3.0, 3.0))
    write_run("again", finished=2, nll=(3.0, 3.0))
    page = render(collect([tmp_path]), title="t")
    assert f"Left out: {tmp_path / 'sweep' / 'fit'}. Each seed and each checkpoint counts once" in page
    assert "not all likelihoods are finite" not in page
    write_run("broken", encoder="roberta", nll=(None, 3.0))
    write_run("other", decoder="llama", nll=(2.0, 2.0))
    page = render(collect([tmp_path]), title="t")
    assert "No nats/token for decoder=gpt2 encoder=roberta: not all likelihoods are finite." in page
    assert "<button>nats/token</button><small>test</small><small>only within one decoder vocabulary</small>" in page
    assert "compare it only between rows with the same decoder vocabulary and max_target_length" in page
    reasons = {why for *_, scores, why in data_of(page)["differences"] if "nll" not in scores}
    assert {why.partition(":")[0] for why in reasons if why} == {"nats/token is omitted"}


def test_a_page_with_a_single_example(write_run, tmp_path):
    write_run("a", scores=(30.0,))
    write_run("b", encoder="roberta", scores=(10.0,), result={"baselines": {}})
    data = data_of(render(collect([tmp_path]), title="t"))
    assert data["rows"][0]["scores"]["rouge1"]["interval"] is None
    assert data["differences"][0][3]["rouge1"] == [20.0, None, None]


def test_the_column_that_ranks_is_named(write_run, tmp_path):
    validation = {"validation": {"monitor": "validation/loss", "mode": "min", "best": 2.125}}
    write_run("a", result=validation)
    write_run("b", encoder="roberta", result=validation | {"metrics": {}, "baselines": {}, "controls": {}})
    page = render(collect([tmp_path]), title="t")
    assert "<button>validation/loss</button><small>ranks the rows; lower is better</small>" in page
    assert '<td data-value="2.125">2.125</td>' in page
    assert "<button>ROUGE-1</button><small>test</small>" in page
    assert "Without a test score: 1 of 2 rows" in page
    write_run("c", seed=2)
    for folder in ("a", "b"):
        (tmp_path / "sweep" / folder / "result.json").unlink()
    page = render(collect([tmp_path]), title="t")
    assert "<button>ROUGE-1</button><small>test; ranks the rows, as no run has a comparable validation score" in page
    assert "Without a test score" not in page
