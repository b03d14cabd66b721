"""Rows are tested in a score that only a whole split has, by a bootstrap over its statistics."""

import json

import numpy as np
import pytest

import warmstart
from warmstart.config.evaluation import EvaluationSettings
from warmstart.evaluation.columns import mean
from warmstart.evaluation.metrics import scorer_of
from warmstart.report.collect import collect
from warmstart.report.compare import rows_of
from warmstart.report.corpus_scores import corpus_score
from warmstart.report.differences import differences
from warmstart.report.page import render

SCORER = scorer_of(EvaluationSettings(metrics=["bleu"]), "en")
SIGNATURES = list(SCORER.signatures.values())
REFERENCES = [" ".join(f"w{(i * 7 + j * j) % 50}" for j in range(12)) for i in range(30)]


@pytest.fixture
def write_bleu(write_run):
    """``write_bleu(name, wrong, ...)``: a run whose summaries have ``wrong`` wrong words each, and its BLEU."""

    def write(name, wrong, *, seed=1, signatures=SIGNATURES, best=1.0):
        made = np.random.default_rng(seed)
        texts = []
        for reference in REFERENCES:
            words = reference.split()
            for i in made.choice(len(words), max(0, wrong + int(made.integers(-1, 2))), replace=False):
                words[i] = "wrong"
            texts.append(" ".join(words))
        bleu = mean(SCORER(texts, REFERENCES, REFERENCES)["bleu"])
        result = {"signatures": signatures, "metrics": {"test/bleu": bleu, "test/bleu_ci": [bleu - 1, bleu + 1]}}
        result |= {"baselines": {"lead1": {"bleu": 1.0}}, "controls": {}}
        result |= {"validation": {"monitor": "validation/bleu", "mode": "max", "best": best}}
        folder = write_run(name, encoder=name.partition("-")[0], seed=seed, result=result)
        rows = [
            {"id": str(i), "document": f"{reference} one. Two.", "reference": reference, "prediction": text}
            for i, (reference, text) in enumerate(zip(REFERENCES, texts, strict=True))
        ]
        (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return bleu

    return write


def compared(tmp_path):
    rows = rows_of(collect([tmp_path]))
    return rows, differences(rows, [corpus_score(row, "bleu") for row in rows])


def test_two_rows_are_tested_in_bleu(write_bleu, tmp_path):
    good, bad = write_bleu("a", 1, best=2.0), write_bleu("b", 6)
    rows, (found,) = compared(tmp_path)
    assert [row.encoder for row in rows] == ["a", "b"]
    difference, low, high = found.scores["bleu"]
    assert difference == pytest.approx(good - bad)
    assert low < difference < high
    assert (found.examples, found.p["bleu"] < 0.001) == (30, True)


def test_compare_has_the_bleu_of_the_report(write_bleu, tmp_path):
    write_bleu("a", 1, best=2.0), write_bleu("b", 6)
    rows, (of_report,) = compared(tmp_path)
    found = warmstart.compare(*(row.runs[0].folder for row in rows)).scores["bleu"]
    assert (found.mean, found.low, found.high) == of_report.scores["bleu"]


def test_rows_of_the_same_quality_do_not_differ_in_bleu(write_bleu, tmp_path):
    write_bleu("a", 4, seed=1, best=2.0)
    write_bleu("b", 4, seed=2)
    _, (found,) = compared(tmp_path)
    _, low, high = found.scores["bleu"]
    assert low < 0 < high
    assert found.p["bleu"] > 0.05


def test_the_bleu_of_a_row_is_the_mean_over_its_seeds(write_bleu, tmp_path):
    of_seeds = [write_bleu(f"a-{seed}", 2, seed=seed, best=2.0) for seed in (1, 2)]
    other = write_bleu("b", 6)
    rows, (found,) = compared(tmp_path)
    assert len(rows[0].runs) == 2
    assert found.scores["bleu"][0] == pytest.approx(np.mean(of_seeds) - other)


def test_the_page_states_the_finding_and_the_baseline_in_bleu(write_bleu, tmp_path):
    write_bleu("a", 1, best=2.0)
    write_bleu("b", 6)
    page = render(collect([tmp_path]), title="t").replace("\N{NO-BREAK SPACE}", " ")
    assert "better than the next row, encoder=b (p &lt; 0.001)" in page
    assert "its strongest baseline, lead1 (" in page
    assert "for the 3 pairs of 3 rows" in page
    assert "of BLEU, which only the whole split has, its standard error is that of the bootstrap" in page
    assert "Not tested in" not in page


def test_bleu_of_another_release_is_not_computed_again_and_the_page_says_so(write_bleu, tmp_path):
    write_bleu("a", 1, best=2.0)
    write_bleu("b", 6, signatures=["bleu|lang:en|nrefs:1|version:0.0"])
    _, found = compared(tmp_path)
    assert found == []
    page = render(collect([tmp_path]), title="t")
    assert "Not tested in BLEU: encoder=b." in page
    assert "The next row, encoder=b, has no BLEU of the same examples." in page


def test_a_score_that_examples_have_is_not_computed_again(write_run, tmp_path):
    write_run("a")
    (row,) = rows_of(collect([tmp_path]))
    row.runs[0].result["signatures"] = ["rouge|tok:rouge-score|lang:en"]
    assert corpus_score(row, "rouge1") is None
