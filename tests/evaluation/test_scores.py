"""Scores against the reference implementation, intervals against theory, controls by what they promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score import rouge_scorer

from warmstart.data.settings import DataKind, DataSettings
from warmstart.data.sources import load_source
from warmstart.evaluation.baselines import lead
from warmstart.evaluation.controls import derangement
from warmstart.evaluation.intervals import bootstrap_interval, paired_difference
from warmstart.evaluation.result import read_result, write_result
from warmstart.evaluation.rouge import KINDS, rouge_scores, sentences
from warmstart.evaluation.scores import judge
from warmstart.evaluation.settings import EvaluationSettings
from warmstart.evaluation.table import verdict


@pytest.fixture(scope="module")
def examples():
    return list(load_source(DataSettings(name="written", kind=DataKind.written)).split("train"))


def test_rouge_equals_the_reference_implementation(examples):
    predictions = lead([example.document for example in examples], 2)
    references = [example.summary for example in examples]
    ours = rouge_scores(predictions, references)
    scorer = rouge_scorer.RougeScorer(list(KINDS), use_stemmer=True)
    for i, (prediction, reference) in enumerate(zip(predictions, references, strict=True)):
        theirs = scorer.score("\n".join(sentences(reference)), "\n".join(sentences(prediction)))
        for kind in KINDS:
            assert ours[kind][i] == pytest.approx(100 * theirs[kind].fmeasure)


def test_sentences_follow_lines_where_there_are_several():
    assert sentences("One. Two.\nThree.") == ["One. Two.", "Three."]
    assert sentences("Dr. Ames left. He came back.") == ["Dr. Ames left.", "He came back."]
    assert sentences("  ") == []


def test_intervals_cover_the_mean_as_often_as_they_say():
    generator = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        low, high = bootstrap_interval(generator.normal(5, 2, 100), 300, trial)
        hits += low <= 5 <= high
    assert 180 <= hits <= 199


def test_paired_difference_is_sharper_than_two_intervals():
    generator = np.random.default_rng(0)
    base = generator.normal(30, 10, 300)
    mean, low, high = paired_difference(base + generator.normal(1, 0.5, 300), base, 500, 0)
    assert 0.8 < low < mean < high < 1.2


@given(st.integers(2, 200), st.integers(0, 10**6))
def test_a_derangement_leaves_nothing_in_place(n, seed):
    order = derangement(n, seed)
    assert sorted(order) == list(range(n))
    assert (order != np.arange(n)).all()


def test_a_reader_is_told_from_one_that_does_not_read(examples):
    documents = [example.document for example in examples]
    references = [example.summary for example in examples]
    settings = EvaluationSettings(bootstrap_samples=200)
    reads = judge(references, references, documents, settings, 0)
    assert "It reads its document" in verdict(reads)
    assert "It beats lead1" in verdict(reads)
    blind = judge(["The same sentence for all."] * len(references), references, documents, settings, 0)
    assert "does not show that it reads" in verdict(blind)
    assert "does not beat lead1" in verdict(blind)
    assert blind.controls["shuffled_document"]["rouge1"] == pytest.approx(blind.metrics["test/rouge1"])


def test_results_are_whole_or_absent(tmp_path):
    write_result(tmp_path, {"status": "complete"})
    assert read_result(tmp_path) == {"status": "complete"}
    with pytest.raises(TypeError):
        write_result(tmp_path, {"status": object()})
    assert read_result(tmp_path) == {"status": "complete"}
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
