"""The registry, and the metrics that no library defines."""

import math
from pathlib import Path

import numpy as np
import pytest

import warmstart.evaluation.metrics
from warmstart.config.evaluation import EvaluationSettings
from warmstart.config.metrics import METRICS, SCORES, primary_score
from warmstart.errors import UserError
from warmstart.evaluation.columns import average, mean, minus, rows, with_intervals
from warmstart.evaluation.metrics import metric_named, scorer_of
from warmstart.evaluation.metrics.entity_precision import names_in
from warmstart.evaluation.metrics.fragments import fragment_lengths

OFFLINE = [name for name in METRICS if name != "bertscore"]


def scored(metric, predictions, references=None, documents=None, code="en"):
    scorer = scorer_of(EvaluationSettings(metrics=["rouge", metric]), code)
    columns = scorer(predictions, references or predictions, documents or predictions)
    return {name: mean(columns[name]) for name in METRICS[metric]}


def test_one_file_is_one_metric_and_returns_the_listed_scores():
    folder = Path(warmstart.evaluation.metrics.__file__).parent
    assert {path.stem for path in folder.glob("*.py")} - {"__init__", "metric"} == METRICS.keys()
    assert len(SCORES) == sum(len(scores) for scores in METRICS.values())
    settings = EvaluationSettings(metrics=OFFLINE)
    scorer = scorer_of(settings, "en")
    columns = scorer(["A dog ran."], ["The dog ran."], ["The dog ran home."])
    assert list(columns) == [score for metric in OFFLINE for score in METRICS[metric]]
    for name, signature in scorer.signatures.items():
        assert signature.startswith(f"{name}|")
        assert "lang:en" in signature
        assert "version:" in signature


def test_a_prediction_like_its_reference_has_the_best_of_every_score():
    texts = ["The mayor met Ada Hill on Monday 12 May.", "It rained in Graz."]
    other = ["It rained in Oslo on 3 June and 4 June and 5 June.", "The mayor met."]
    good = scorer_of(EvaluationSettings(metrics=OFFLINE), "en")(texts, texts, texts)
    bad = scorer_of(EvaluationSettings(metrics=OFFLINE), "en")(other, texts, texts)
    for name in good:
        if (better := SCORES[name].better) is not None and name not in ("sari", "repeated_3grams"):
            difference = mean(minus(good[name], bad[name]))
            assert (difference < 0) if better == "min" else (difference > 0), name


def test_texts_of_different_numbers_are_refused():
    with pytest.raises(ValueError, match="2 predictions, 1 references"):
        scorer_of(EvaluationSettings(), "en")(["a", "b"], ["a"], ["a"])


def test_fragments_are_those_of_the_paper():
    source = ["the", "river", "rose", "and", "the", "bridge", "was", "closed", "on", "monday"]
    summary = ["on", "monday", "the", "bridge", "was", "shut", "as", "the", "river", "rose"]
    assert fragment_lengths(summary, source) == [2, 3, 3]
    assert scored("fragments", [" ".join(summary)], documents=[" ".join(source)]) == {"coverage": 0.8, "density": 2.2}
    assert scored("fragments", [""], documents=["a"]) == {"coverage": 0.0, "density": 0.0}


def test_novel_and_repeated_ngrams():
    found = scored("novel_ngrams", ["the river fell", ""], documents=["the river rose", "x"])
    assert math.isnan(found.pop("novel_4grams"))  # the text has three words
    assert found == pytest.approx({"novel_1grams": 100 / 3, "novel_2grams": 50.0, "novel_3grams": 100.0})
    assert scored("repetition", ["a b c a b c", "one two three"])["repeated_3grams"] == pytest.approx(20.0)


def test_exact_match_and_length():
    assert scored("exact_match", ["A  dog.", "a dog."], ["A dog.", "A dog."])["exact_match"] == 50.0
    assert scored("length_ratio", ["a b c"], ["a b"])["length_ratio"] == 1.5
    assert scored("length_ratio", ["今天下雨"], ["下雨"], code="zh")["length_ratio"] == 2.0


def test_numbers_and_names_are_sought_in_the_source():
    document = "On Monday Ada Hill of the United Nations counted 12,500 homes in Graz."
    assert scored("number_precision", ["12500 homes, 3 roads"], documents=[document])["number_precision"] == 50.0
    assert scored("number_precision", ["१२५०० घर"], documents=["12500 घर"], code="hi")["number_precision"] == 100.0
    summary = "The mayor met Ada Hill and Otto Berg in Graz."
    assert names_in(summary, "en") == {"Ada Hill", "Otto Berg", "Graz"}
    assert names_in("The United Nations met. Rain fell.", "en") == {"United Nations"}
    assert scored("entity_precision", [summary], documents=[document])["entity_precision"] == pytest.approx(200 / 3)
    assert math.isnan(scored("entity_precision", ["no names"])["entity_precision"])


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (
            "ru",
            "Вчера президент Владимир Путин встретил Ангелу Меркель около города Москва. Переговоры шли весь день.",
        ),
        (
            "fr",
            "Hier, à l'Élysée, le président François Hollande écarte Manuel Valls. L'été à Évian déçoit Émile Zola.",
        ),
        ("el", "Χθες στην πόλη των Αθηνών Αλέξης Τσίπρας συνάντησε την Άνγκελα Μέρκελ στην Αθήνα."),
        ("en", "Yesterday an iPhone of Ada Hill rang in Graz."),
    ],
)
def test_a_copied_source_has_all_its_names_in_any_script(code, text):
    assert scored("entity_precision", [text], code=code)["entity_precision"] == 100.0


def test_words_between_names_do_not_join_them():
    text = "Hier François Hollande écarte Manuel Valls à Paris."
    assert names_in(text, "fr") == {"Hier François Hollande", "Manuel Valls", "Paris"}
    assert names_in("Écarté hier, il quitte l'Élysée et d\u2019Orsay.", "fr") == {"Élysée", "Orsay"}
    assert names_in("Сегодня идёт дождь в городе Москва.", "ru") == {"Москва"}
    scores = scored("entity_precision", ["Il aime Évian."], documents=["La ville d'Évian"], code="fr")
    assert scores["entity_precision"] == 100.0


@pytest.mark.parametrize("code", ["de", "hi", "zh", "ar"])
def test_names_without_telling_capitals_are_left_out_with_a_reason(code):
    scorer = scorer_of(EvaluationSettings(metrics=["rouge", "entity_precision"]), code)
    assert list(scorer.metrics) == ["rouge"]
    assert f"data.language={code}" in scorer.left_out["entity_precision"]
    with pytest.raises(UserError, match=r"compares nothing .* such as rouge"):
        scorer_of(EvaluationSettings(metrics=["entity_precision"]), code)


@pytest.mark.parametrize("metric", ["bleu", "sari"])
def test_japanese_words_need_mecab(metric, monkeypatch):
    monkeypatch.setattr("warmstart.evaluation.metrics.bleu.find_spec", lambda name: None)
    assert "pip install 'sacrebleu[ja]'" in metric_named(metric).reason_against("ja")
    assert metric_named(metric).reason_against("zh") is None


def test_the_primary_score_is_the_first_that_can_be_better():
    assert primary_score(["fragments", "ter", "rouge"]) == "ter"
    with pytest.raises(ValueError, match="None of the metrics"):
        primary_score(["fragments"])


def test_a_corpus_score_is_compared_and_picked_like_a_mean():
    scorer = scorer_of(EvaluationSettings(metrics=["length_ratio", "exact_match"]), "en")
    own, rival = (scorer(texts, ["a b", "a b"], ["", ""]) for texts in (["a b c d", "a b"], ["a", "a b"]))
    assert mean(own["length_ratio"]) == 1.5
    assert mean(minus(own["length_ratio"], rival["length_ratio"])) == 0.75
    assert mean(rows(own["length_ratio"], np.array([1]))) == 1.0
    assert mean(average([own["length_ratio"], rival["length_ratio"]])) == 1.125
    found = with_intervals(own, 100, 0, "test/")
    low, high = found["test/length_ratio_ci"]
    assert 1.0 <= low < 1.5 < high <= 2.0
    single = with_intervals(scorer(["a"], ["a"], ["a"]), 10, 0)
    assert all(math.isnan(end) for name in ("length_ratio", "exact_match") for end in single[f"{name}_ci"])
