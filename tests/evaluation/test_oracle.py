"""Greedy oracle sentences by hand, and equal to the algorithm of BertSum's code on random texts."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warmstart.evaluation.baselines import baseline_texts
from warmstart.evaluation.oracle import f_measure, greedy_oracle, oracle


def published(sentences, summary, size):
    """Return what ``greedy_selection`` of the published code returns (prepro/data_builder.py), in its steps."""

    def clean(text):
        return re.sub(r"[^a-zA-Z0-9 ]", "", text).split()

    def ngrams(n, words):
        return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}

    def f(found, wanted):
        common = len(found & wanted)
        precision = common / len(found) if found else 0.0
        recall = common / len(wanted) if wanted else 0.0
        return 2.0 * ((precision * recall) / (precision + recall + 1e-8))

    reference, selected, best = clean(summary), [], 0.0
    for _ in range(size):
        current, chosen = best, -1
        for i in range(len(sentences)):
            if i in selected:
                continue
            ones = set.union(*(ngrams(1, clean(sentences[j])) for j in [*selected, i]))
            twos = set.union(*(ngrams(2, clean(sentences[j])) for j in [*selected, i]))
            score = f(ones, ngrams(1, reference)) + f(twos, ngrams(2, reference))
            if score > current:
                current, chosen = score, i
        if chosen == -1:
            return sorted(selected)
        selected.append(chosen)
        best = current
    return sorted(selected)


def test_f_measure_by_hand():
    found, wanted = {("a",), ("b",), ("c",)}, {("a",), ("b",), ("d",), ("e",)}
    assert f_measure(found, wanted) == pytest.approx(4 / 7)  # precision 2/3, recall 2/4
    assert f_measure(set(), wanted) == f_measure(found, set()) == 0


@pytest.mark.parametrize(
    ("sentences", "summary", "wanted"),
    [
        # Alone, the second has F1 1 and 1. No other sentence raises that.
        (["x y z", "the cat sat", "the cat"], "the cat sat", [1]),
        # "a b" or "c d": 2*1*(1/2)/(3/2) = 0.667 and 2*1*(1/3)/(4/3) = 0.5. Both: 1 and 2*1*(2/3)/(5/3) = 0.8.
        (["c d", "x y", "a b"], "a b c d", [0, 2]),
        (["a b", "a b"], "a b", [0]),  # of equal sentences the first
        (["x", "y"], "a b", []),  # none raises the score
        (["a", "b", "c", "d"], "a b c d", [0, 1, 2]),  # three at most
        (["The CAT, sat!"], "the cat sat", [0]),
        ([], "a", []),
    ],
)
def test_oracle_by_hand(sentences, summary, wanted):
    assert greedy_oracle(sentences, summary) == wanted


WORDS = st.lists(st.sampled_from("abcdef"), max_size=6).map(" ".join)


@settings(max_examples=200, deadline=None)
@given(st.lists(WORDS, max_size=6), WORDS, st.integers(1, 4))
def test_oracle_equals_the_published_code(sentences, summary, size):
    assert greedy_oracle(sentences, summary, size) == published(sentences, summary, size)


def test_oracle_is_a_baseline_that_reads_the_references():
    documents = ["He went home. The cat sat on it.\nIt rained.", "One thing."]
    references = ["The cat sat.\nIt rained.", "Another text."]
    found = baseline_texts(["oracle"], documents, references=references)
    assert found == {"oracle": ["The cat sat on it.\nIt rained.", ""]}
    assert oracle(["\u732b\u5750\u4e0b\u3002\u4e0b\u96e8\u4e86\u3002"], ["\u4e0b\u96e8"], language="zh") == [
        "\u4e0b\u96e8\u4e86\u3002"
    ]
