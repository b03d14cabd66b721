"""The page contains its data, within limits, and escapes every text."""

import base64
import gzip
import json
import re
import statistics
import subprocess
import sys

import pytest

from warmstart.report.collect import collect
from warmstart.report.page import render


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


def test_the_task_writes_a_page_and_no_run_folder(write_run, run_py, tmp_path):
    write_run("a")
    write_run("b", status="failed")
    outcome = run_py("task=report", "sweep=sweep", cwd=tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    assert "2 runs (1 complete, 1 failed)" in outcome.stdout
    assert (tmp_path / "sweep" / "report.html").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sweep"]
    outcome = run_py("task=report", "sweep=no", cwd=tmp_path)
    assert outcome.returncode == 2
    assert "no such folder" in outcome.stderr
    (tmp_path / "multirun").mkdir()
    (tmp_path / "sweep").rename(tmp_path / "multirun" / "sweep")  # the default folder of a sweep of this name
    outcome = run_py("task=report", "sweep=sweep", cwd=tmp_path)
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


def test_an_upper_bound_is_named_as_one(write_run, tmp_path):
    folder = write_run("a", scores=tuple(float(i) for i in range(12)))
    write_run("b", encoder="roberta", scores=tuple(float(i % 5) for i in range(12)))
    path = folder / "predictions.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row | {"oracle/rouge1": 60.0, "lead1/rouge1": 3.0}) + "\n" for row in rows))
    result = json.loads((folder / "result.json").read_text())
    result["baselines"]["oracle"] = result["baselines"]["lead1"] | {"rouge1": 60.0}
    (folder / "result.json").write_text(json.dumps(result))
    page = render(collect([tmp_path]), title="t")
    data = data_of(page)
    assert page.count("(baseline)") == 1
    assert "oracle sentences (upper bound)" in page
    assert "<th><button>over oracle sentences</button></th>" in page
    assert data["compared"][2:] == ["lead1 (baseline)", "oracle sentences (upper bound)"]
    assert data["upper_bounds"] == [3]
    assert [bool(p) for a, b, *_, p in data["differences"]] == [b != 3 for a, b, *_ in data["differences"]]
    assert "for the 3 pairs of 3 rows" in page
    assert "Upper bounds read the references, so they are not tested." in page
    (folder / "result.json").write_text(json.dumps(result | {"baselines": {"lead1": result["baselines"]["lead1"]}}))
    assert "Upper bounds" not in render(collect([tmp_path]), title="t")


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
    assert "<button>nats/token</button><small>test</small><small>only over the same labels</small>" in page
    assert "compare it only between rows with the same decoder vocabulary, max_target_length and target_form" in page
    reasons = {why for *_, scores, why, _ in data_of(page)["differences"] if "nll" not in scores}
    assert {why.partition(":")[0] for why in reasons if why} == {"nats/token is omitted"}


def test_bits_per_byte_are_shown_for_rows_with_different_tokenizers_and_only_over_all_references(write_run, tmp_path):
    write_run("a", nll=(3.0, 3.0), bits=(1.0, 1.5))
    write_run("b", encoder="roberta", nll=(2.0, 2.0), bits=(1.2, 1.6))
    assert "bits/byte" not in render(collect([tmp_path]), title="t")
    write_run("c", decoder="llama", nll=(2.0, 2.0), bits=(1.2, None))
    page = render(collect([tmp_path]), title="t")
    assert "<button>bits/byte</button>" in page
    assert "<small>[1.000, 1.500]</small>" in page
    means = {row["label"]: row["scores"]["bits_per_byte"]["mean"] for row in data_of(page)["rows"]}
    assert sorted(means.values(), key=str) == [1.25, pytest.approx(1.4), None]


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
    assert "<button>validation/<wbr>loss</button><small>ranks the rows; lower is better</small>" in page
    assert '<td data-value="2.125">2.125</td>' in page
    assert "<button>ROUGE-1</button><small>test</small>" in page
    assert "Without a test score: 1 of 2 rows" in page
    write_run("c", seed=2)
    for folder in ("a", "b"):
        (tmp_path / "sweep" / folder / "result.json").unlink()
    page = render(collect([tmp_path]), title="t")
    assert "<button>ROUGE-1</button><small>test; ranks the rows, as no run has a comparable validation score" in page
    assert "Without a test score" not in page


def validation(score, looks=0, best=None):
    """The result of a fit that scored the validation split."""
    metrics = {"validation/rouge1": score, "validation/rouge1_ci": [score - 1.5, score + 1.5]}
    monitored = {"monitor": "validation/loss", "mode": "min", "best": best or 90 - score}
    return {"metrics": metrics, "validation": monitored, "test_looks": looks}


def test_validation_scores_stand_next_to_those_of_the_test_split(write_run, tmp_path):
    tested = {"validation": {"monitor": "validation/loss", "mode": "min", "best": 1.0}, "test_looks": 3}
    tested |= {"metrics": {"test/rouge1": 35.0, "validation/rouge1": 41.0}}
    write_run("winner", scores=(30.0, 40.0), result=tested)
    write_run("other", encoder="roberta", scores=(33.0, 33.0), text="c d", lead=22.0, result=validation(33.25))
    page = render(collect([tmp_path]), title="t")
    assert "<button>validation ROUGE-1</button><small>whole split</small>" in page
    assert "<button>looks</button><small>at the test split</small>" in page
    assert "Without a test score: 1 of 2 rows. Their fits did not read the test split" in page
    assert "33.25<small>[31.8, 34.8]</small>" in page
    assert "evaluated on different test examples" not in page
    first, second = data_of(page)["rows"]
    assert [row["looks"] for row in (first, second)] == [3, 0]
    assert first["scores"]["rouge1"]["mean"] == 35.0
    assert second["scores"]["rouge1"] == {"mean": None, "deviation": None, "interval": None}
    assert data_of(page)["leads"] == [["lead1, test", 30.0]]
    lead = re.search(r"lead1, validation \(baseline\)</td>(.*?)</tr>", page, re.DOTALL).group(1)
    assert re.findall(r">([^<>\n]+)</td>", lead)[:4] == ["\u2013", "\u2013", "22.00", "\u2013"]


def test_without_any_test_score_the_page_is_of_the_validation_split(write_run, tmp_path):
    write_run("a", scores=(30.0, 32.0), result=validation(31.0))
    write_run("b", encoder="roberta", scores=(40.0, 42.0), result=validation(41.0))
    page = render(collect([tmp_path]), title="t")
    data = data_of(page)
    assert data["split"] == "validation"
    assert [row["scores"]["rouge1"]["mean"] for row in data["rows"]] == [41.0, 31.0]
    assert data["rows"][0]["scores"]["rouge1"]["interval"] == [40.0, 42.0]
    assert data["leads"] == [["lead1", 30.0]]
    assert "<button>ROUGE-1</button><small>validation</small>" in page
    assert "validation ROUGE-1" not in page
    assert "All scores on this page are of the validation split." in page
    assert data["differences"][0][2:4] == [2, data["differences"][0][3]]
    assert data["differences"][0][3]["rouge1"][0] == 10.0


def test_the_page_says_what_its_correction_is_for(write_run, tmp_path):
    for number, name in enumerate(("a", "b", "c")):
        write_run(name, encoder=name, scores=tuple(float(10 * i % 37 + number) for i in range(12)))
    page = render(collect([tmp_path]), title="t")
    assert "corrected by Holm's method for the 6 pairs of 4 rows that can be compared here" in page
    assert all(one[5].keys() == one[3].keys() for one in data_of(page)["differences"])
    write_run("d", encoder="d", scores=(1.0,))
    assert "for the 6 pairs of 4 rows" in render(collect([tmp_path]), title="t")


def test_the_page_begins_with_its_finding(write_run, tmp_path):
    for number, name in enumerate(("a", "b")):
        write_run(name, encoder=name, scores=tuple(float(10 * i % 37 + 5 * number) for i in range(12)))
    page = render(collect([tmp_path]), title="t")
    assert page.index("encoder=b is the best of 2 rows by test/rouge1") < page.index("Leaderboard")


def test_a_row_has_one_color_in_tables_and_plots(write_run, tmp_path):
    for number in range(12):
        write_run(str(number), encoder=f"e{number}", scores=(float(number), 20.0))
    write_run("seed", encoder="e3", seed=2, scores=(3.0, 20.0))
    page = render(collect([tmp_path]), title="t")
    data = data_of(page)
    color_of = {row["label"]: row["color"] for row in data["rows"]}
    assert len(set(color_of.values())) == 12
    assert all(curve["color"] == color_of[curve["row"]] for curve in data["curves"])
    assert [curve["label"] for curve in data["curves"] if curve["row"] == "encoder=e3"] == [
        "encoder=e3, seed 1",
        "encoder=e3, seed 2",
    ]
    for color in color_of.values():
        assert page.count(f"background: {color}") == 4  # leaderboard, commands, parameters, errors


def test_a_curve_has_at_least_three_points(write_run, tmp_path):
    folder = write_run("a")
    (curve,) = data_of(render(collect([tmp_path]), title="t"))["curves"]
    assert list(curve["metrics"]) == ["train/loss"]
    (folder / "metrics.csv").write_text("step,train/loss,validation/loss\n1,3.0,\n2,,2.5\n3,2.0,\n")
    page = render(collect([tmp_path]), title="t")
    assert data_of(page)["curves"] == []
    assert "Learning curves" not in page


def test_samples_carry_what_is_wrong_with_them(write_run, tmp_path):
    folder = write_run("a", scores=(0.0, 20.0))
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    rows[1]["prediction"] = "in 1999"
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = render(collect([tmp_path]), title="t")
    assert data_of(page)["samples"][0] == {
        "0": ["a b", 0.0, {"zero": "no word of the reference"}],
        "1": ["in 1999", 20.0, {"number": "not in the source: 1999"}],
    }
    assert '<td data-value="50.0">50.0 %</td>' in page
