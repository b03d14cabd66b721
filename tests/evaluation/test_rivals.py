"""Baselines from documents and training examples; derangements have no fixed points; the control reuses predictions."""

import math
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmstart.config.data import BASELINES
from warmstart.config.evaluation import EvaluationSettings
from warmstart.config.schema import OPTIONS
from warmstart.data.sources.base import Example, LazyRows
from warmstart.evaluation.baselines import (
    FIRST_READ,
    MOST_TRAINING_EXAMPLES,
    NOT_OF_DOCUMENTS,
    baseline_texts,
    copied_source,
    copula,
    from_documents,
    lead,
    most_frequent,
    nearest,
    training_sample,
)
from warmstart.evaluation.controls import derangement, shuffled_document
from warmstart.evaluation.metrics import scorer_of
from warmstart.evaluation.metrics.rouge import rouge_scores

ROUGE = scorer_of(EvaluationSettings(), "en")


def test_lead_takes_sentences_from_one_line_sentences_or_paragraphs():
    wanted = "Dr. Ames came.\nShe spoke.\nAll left."
    for document in (
        "Dr. Ames came. She spoke. All left. Rain fell.",
        "Dr. Ames came.\nShe spoke.\nAll left.\nRain fell.",
        "\n\nDr. Ames came. She spoke.\n\nAll left. Rain fell.\n",
    ):
        assert lead([document], 3) == [wanted]
    assert lead(["", "One."], 3) == ["", "One."]


def test_lead_reads_more_if_sentences_are_long():
    first, second = "word " * FIRST_READ + "end.", "Next " + "and " * FIRST_READ + "stop."
    assert lead([f"{first} {second} Third."], 2) == [f"{first}\n{second}"]


@pytest.mark.parametrize(
    ("document", "description"),
    [
        ("Ada Hill was an English composer, known for songs.", "English composer"),
        ("Ferns are plants that bear spores. They grow.", "plants that bear spores"),
        ("The 3.5 mm jack (plug) is the plug of 3.5 mm in most phones.", "plug of 3.5 mm in most phones"),
        (
            "A is one two three four five six seven eight nine ten eleven.",
            "one two three four five six seven eight nine",
        ),
        ("Isis, Ares and Wasps: no verb", "Isis, Ares and Wasps: no verb"),
        ("IT IS A TITLE", "TITLE"),
        ("", ""),
    ],
)
def test_the_copula_rule(document, description):
    assert copula([document]) == [description]


def examples_of(*pairs):
    return [Example(str(i), *pair) for i, pair in enumerate(pairs)]


def test_most_frequent_takes_the_first_among_equals():
    assert most_frequent(["b", "a", "c", "a", "b"]) == "b"
    with pytest.raises(ValueError, match="training examples"):
        most_frequent([])


def test_nearest_is_the_cosine_of_tf_idf():
    words = [f"w{i}" for i in range(40)]
    draw = np.random.RandomState(3)
    texts = [" ".join(draw.choice(words, draw.randint(3, 30))) for _ in range(60)]
    training = examples_of(*((text, f"target {i}") for i, text in enumerate(texts[:40])))
    n, counts = len(training), [Counter(re.findall(r"\w+", text)) for text in texts]
    idf = {word: math.log((1 + n) / (1 + sum(word in one for one in counts[:n]))) + 1 for word in words}
    vectors = np.array([[one[word] * idf[word] for word in words] for one in counts])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    wanted = (vectors[n:] @ vectors[:n].T).argmax(axis=1)
    assert nearest(texts[n:], training) == [f"target {i}" for i in wanted]
    assert nearest([texts[7].upper(), "nothing in common", ""], training) == ["target 7", "target 0", "target 0"]
    assert nearest(["a text"], examples_of(("a", "no word of two characters"))) == ["no word of two characters"]
    with pytest.raises(ValueError, match="training examples"):
        nearest(["x"], [])


class ManyRows(LazyRows):
    """Training examples on disk that count what is read."""

    def __init__(self):
        self.read = []

    def __len__(self):
        return 30_000

    def _read(self, index):
        self.read.append(index)
        return Example(str(index), f"Document {index}", "Same")


def test_many_training_examples_are_sampled_without_reading_the_others():
    rows = ManyRows()
    first = training_sample(rows)
    assert len(rows.read) == len(first) == MOST_TRAINING_EXAMPLES
    assert rows.read == sorted(set(rows.read))  # in their order
    assert max(rows.read) > 29_900
    assert training_sample(ManyRows()) == first  # every run compares with the same
    few = examples_of(("a", "b"))
    assert training_sample(few) == few
    assert f" {MOST_TRAINING_EXAMPLES} training examples" in OPTIONS["data.baselines"].doc


def test_every_baseline_that_can_be_chosen():
    documents, training = ["One is a thing. Two.", "Three."], examples_of(("Two things", "t"), ("One thing", "s"))
    references = ["Two.", "Other."]
    found = baseline_texts(BASELINES, documents, training, references=references, lead_sentences=3)
    assert found == {
        "lead1": ["One is a thing.", "Three."],
        "lead3": ["One is a thing.\nTwo.", "Three."],
        "copula": ["thing", "Three."],
        "nearest": ["s", "t"],
        "most_frequent": ["t", "t"],
        "source": documents,
        "oracle": ["Two.", ""],
    }
    for name in found.keys() - set(NOT_OF_DOCUMENTS):
        assert from_documents(name, documents) == found[name]
    assert copied_source(documents) == documents
    for wrong in ("nearest", "lead", "lead0", "leader"):
        with pytest.raises(ValueError, match="not a baseline of documents"):
            from_documents(wrong, documents)
    # Training examples that no baseline uses are not read.
    assert list(baseline_texts(["lead"], documents, rows := ManyRows())) == ["lead1"]
    assert rows.read == []


@given(st.integers(2, 200), st.integers(0, 10**6))
def test_a_derangement_has_no_fixed_points(n, seed):
    order = derangement(n, seed)
    assert sorted(order) == list(range(n))
    assert (order != np.arange(n)).all()


def test_one_example_has_no_control():
    with pytest.raises(ValueError, match="at least two"):
        derangement(1, 0)


def test_all_other_indices_are_equally_likely():
    first = np.array([derangement(4, seed) for seed in range(900)])[:, 0]
    assert np.abs(np.bincount(first, minlength=4) / 900 - [0, 1 / 3, 1 / 3, 1 / 3]).max() < 0.06


def test_the_control_is_the_mean_over_other_documents_summaries(references):
    texts = references[:3]
    found = shuffled_document(texts, texts, texts, score=ROUGE, shuffles=400, seed=0)["rouge1"]
    for i in range(3):
        others = [rouge_scores([texts[j]], [texts[i]])["rouge1"][0] for j in range(3) if j != i]
        assert found[i] == pytest.approx(np.mean(others), abs=1.5)
    part = shuffled_document(texts, texts, texts, score=ROUGE, shuffles=400, seed=0, rows=np.array([2]))["rouge1"]
    assert part == pytest.approx(found[[2]])


def test_shuffles_of_neighbouring_seeds_are_not_the_same():
    drawn = {tuple(derangement(30, seed, shuffle)) for seed in (1, 2, 3) for shuffle in range(5)}
    assert len(drawn) == 15
    texts = [f"w{i}" if i % 3 else "same" for i in range(30)]
    means = [shuffled_document(texts, texts, texts, score=ROUGE, shuffles=1, seed=seed)["rouge1"] for seed in (1, 2)]
    both = shuffled_document(texts, texts, texts, score=ROUGE, shuffles=2, seed=1)["rouge1"]
    assert not np.allclose(both, np.mean(means, axis=0))
