"""Scores equal Google's rouge-score, and both sides have one sentence per line."""

import random

import numpy as np
import pytest
from rouge_score import rouge_scorer

from warmstart.errors import UserError
from warmstart.evaluation.baselines import lead
from warmstart.evaluation.languages import MOST_LOST, check_references, lost_letters, sentences
from warmstart.evaluation.metrics.rouge import KINDS, rouge_scores


def theirs(prediction, reference):
    scorer = rouge_scorer.RougeScorer(list(KINDS), use_stemmer=True)
    scores = scorer.score("\n".join(sentences(reference)), "\n".join(sentences(prediction)))
    return {kind: 100 * score.fmeasure for kind, score in scores.items()}


def shuffled_words(text, rng):
    words = text.split()
    rng.shuffle(words)
    return " ".join(words[: rng.randint(0, len(words))])


def test_equal_to_the_reference_implementation(documents, references):
    rng = random.Random(0)
    predictions = lead(documents, 2) + [shuffled_words(text, rng) for text in references]
    wanted = references * 2
    ours = rouge_scores(predictions, wanted)
    for i, (prediction, reference) in enumerate(zip(predictions, wanted, strict=True)):
        assert {kind: ours[kind][i] for kind in KINDS} == pytest.approx(theirs(prediction, reference)), prediction


@pytest.mark.parametrize("odd", ["", " \n ", "...", "Größe über Ärger", "日本語の文です。", "a" * 5000, "runs ran"])
def test_equal_on_odd_texts(odd):
    for pair in ((odd, "The runner ran."), ("The runner ran.", odd)):
        ours = rouge_scores([pair[0]], [pair[1]])
        assert {kind: ours[kind][0] for kind in KINDS} == pytest.approx(theirs(*pair))


def test_words_are_stemmed():
    assert rouge_scores(["bridges closed"], ["bridge closing"])["rouge1"][0] == 100.0


def test_rouge_lsum_sees_sentences_and_rouge_l_one_sequence():
    scores = rouge_scores(["The road is closed. The river rose."], ["The river rose. The road is closed."])
    assert scores["rougeLsum"][0] == pytest.approx(100.0)
    assert scores["rougeL"][0] < 60


def test_several_lines_are_the_sentences():
    assert sentences("One. Two.\nThree.") == ["One. Two.", "Three."]
    assert sentences("Dr. Ames left. He came back.") == ["Dr. Ames left.", "He came back."]
    assert sentences("  ") == []


def test_values_come_in_order_and_unequal_lists_are_refused(references):
    scores = rouge_scores([references[0], "zzz"], [references[0], references[1]])
    np.testing.assert_array_equal(scores["rouge2"], [100.0, 0.0])
    with pytest.raises(ValueError, match="2 predictions"):
        rouge_scores(["a", "b"], ["a"])


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("दिल्ली में 3 बजे वर्षा", 1.0),
        ("日本語の文", 1.0),
        ("Größe", 0.4),
        ("Gro\u0308e", 0.0),  # the mark is not a letter, and o is counted
        ("\u0130zmir \u212a", 0.0),  # their lower case is i and k
        ("The river rose.", 0.0),
        ("1234 ...", 0.0),
        ("", 0.0),
    ],
)
def test_rouge_ignores_letters_outside_a_to_z(text, lost):
    assert lost_letters([text]) == pytest.approx(lost)
    word = rouge_scores([text], [text])["rouge1"][0]
    assert (word > 0) == any(c.isascii() and c.isalnum() for c in text.lower())


def test_references_that_lose_a_tenth_of_their_letters_are_refused():
    german = ["Die Bürgermeisterin erklärte, die Brücke bleibe für Wochen gesperrt."] * 9
    assert 0.02 < lost_letters(german) < MOST_LOST
    check_references(german, "test", "")
    with pytest.raises(UserError, match=r"ignore 37% of the letters .* references, such as 'प.*language=hi\. Stop\.$"):
        check_references([*german, "प" * 249], "test", "Stop.")
