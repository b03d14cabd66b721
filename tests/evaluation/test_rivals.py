"""Lead-n returns first sentences, derangements have no fixed points, and the control reuses predictions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmstart.evaluation.baselines import FIRST_READ, lead
from warmstart.evaluation.controls import derangement, shuffled_document
from warmstart.evaluation.rouge import rouge_scores


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
    found = shuffled_document(texts, texts, shuffles=400, seed=0)["rouge1"]
    for i in range(3):
        others = [rouge_scores([texts[j]], [texts[i]])["rouge1"][0] for j in range(3) if j != i]
        assert found[i] == pytest.approx(np.mean(others), abs=1.5)
    part = shuffled_document(texts, texts, shuffles=400, seed=0, rows=np.array([2]))["rouge1"]
    assert part == pytest.approx(found[[2]])


def test_shuffles_of_neighbouring_seeds_are_not_the_same():
    drawn = {tuple(derangement(30, seed, shuffle)) for seed in (1, 2, 3) for shuffle in range(5)}
    assert len(drawn) == 15
    texts = [f"w{i}" if i % 3 else "same" for i in range(30)]
    means = [shuffled_document(texts, texts, shuffles=1, seed=seed)["rouge1"] for seed in (1, 2)]
    both = shuffled_document(texts, texts, shuffles=2, seed=1)["rouge1"]
    assert not np.allclose(both, np.mean(means, axis=0))
