"""Pairs made from documents: what each objective makes, and that no label, process or order changes it."""

import json
import random
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmstart.config.data import DataKind, DataSettings, Objective
from warmstart.data.objectives import (
    FIRST_WORDS,
    MARK,
    TARGET_WORDS,
    gap_sentences,
    prefix,
    reconstruction,
    sentences_of,
    span_corruption,
    unlabelled_pair,
    words_of,
)
from warmstart.data.sources import base
from warmstart.data.sources.load import load_source
from warmstart.errors import UserError

UNLABELLED = [one for one in Objective if one is not Objective.summary]
SPLITS = ("train", "validation", "test")
WORDS = st.lists(st.sampled_from(["the", "Mill", "of", "river,", "stands.", "1868", "Is", "it?", "水", "é"]))
TEXTS = st.one_of(st.text(), WORDS.map(" ".join))
LONG = " ".join(f"w{i}" for i in range(3 * FIRST_WORDS))


def made(objective, text, example_id="7"):
    return unlabelled_pair(objective, text, example_id)


def chance(seed=0):
    return random.Random(seed)


@pytest.mark.parametrize("objective", UNLABELLED)
@given(text=TEXTS, example_id=st.text())
def test_no_source_and_no_target_is_empty(objective, text, example_id):
    source, target = made(objective, text, example_id)
    assert source.strip()
    assert target.strip()
    assert (source, target) == made(objective, text, example_id)


@pytest.mark.parametrize("objective", UNLABELLED)
def test_texts_too_short_for_an_objective(objective):
    assert made(objective, " \n") == (MARK, MARK)
    assert made(objective, "Mill") == ("Mill", "Mill")


def test_an_objective_takes_targets_of_at_most_target_words_from_a_long_text():
    for objective in UNLABELLED:
        for example_id in map(str, range(20)):
            source, target = made(objective, LONG + " end. " + LONG + " end. The End.", example_id)
            if objective in (Objective.prefix, Objective.span_corruption):
                assert len(target.split()) <= TARGET_WORDS
                last = [word for word in target.split() if word != MARK][-1]
                assert int(last[1:]) < FIRST_WORDS + TARGET_WORDS
            assert source != target


@given(text=TEXTS, seed=st.integers())
def test_source_and_continuation_are_the_text(text, seed):
    text, words = text.strip(), words_of(text)
    if len(words) < 2:
        return
    source, target = prefix(text, chance(seed))
    found = words_of(source) + words_of(target)
    assert [word.strip() for word in found] == [word.strip() for word in words[: len(found)]]
    assert len(found) == len(words) or len(words_of(target)) == TARGET_WORDS
    assert text.startswith(source)


@given(text=TEXTS, seed=st.integers())
def test_spans_and_the_rest_are_all_words_in_order(text, seed):
    words = [word.strip() for word in words_of(text)]
    if len(words) < 2 or MARK in text:
        return
    source, target = span_corruption(text, chance(seed))
    spans = [[word.strip() for word in words_of(span)] for span in target.split(f" {MARK} ")]
    rest = [word.strip() for word in words_of(source)]
    assert rest.count(MARK) == len(spans)
    restored = []
    for word in rest:
        restored += spans.pop(0) if word == MARK else [word]
    assert restored == words


def test_span_corruption_masks_about_15_percent_in_spans_of_three_words():
    text = " ".join(f"w{i}" for i in range(200))
    source, target = span_corruption(text, chance())
    assert source.split().count(MARK) == 10
    assert f"{MARK} {MARK}" not in source
    assert [len(span.split()) for span in target.split(f" {MARK} ")] == [3] * 10


def test_reconstruction_drops_words_and_asks_for_the_opening_sentences():
    text = "The old mill stands by the river. It was sold in May. " + "Many people came to see the sale. " * 9
    source, target = reconstruction(text, chance())
    assert target.startswith("The old mill stands by the river. It was sold in May. Many people")
    assert len(target.split()) <= TARGET_WORDS
    assert target.endswith("sale.")
    words = iter(text.split())
    assert all(word in words for word in source.split())  # a subsequence
    assert 0.5 < len(source.split()) / len(text.split()) < 0.9


def test_gap_sentences_cuts_the_sentence_most_like_the_rest():
    # ROUGE-1 F1 with the rest, by hand, of 14 words in all: 2 x 1 / 14 ("sold"), 2 x 2 / 14 ("mill", "sold") and
    # 2 x 1 / 14 ("mill").
    text = "Ann sold a house. The mill was sold Friday. That mill makes very fine flour."
    text = text.replace("very ", "")
    assert gap_sentences(text, chance()) == (
        "Ann sold a house. That mill makes fine flour.",
        "The mill was sold Friday.",
    )


def test_gap_sentences_counts_repeated_words_and_keeps_the_order_of_the_text():
    fillers = [f"Nothing{i} else{i}." for i in range(5)]
    text = " ".join(["A b c.", *fillers, "A a b b c c.", "A b."])
    source, target = gap_sentences(text, chance())
    assert target == "A b c. A a b b c c."
    assert source == " ".join([*fillers, "A b."])


def test_a_text_of_one_sentence_has_no_gap_sentence_but_a_continuation():
    text = "The old mill by the river was sold in May to a baker."
    source, target = gap_sentences(text, chance())
    assert f"{source} {target}" == text


def test_sentences_end_at_punctuation_but_not_at_abbreviations():
    text = 'Dr. J. R. Hill left the U.S. Army. "Why?" He said no. 3 went, e.g. by sea. 水が来た。山だ。\n\nTitle'
    assert [one.strip() for one in sentences_of(text)] == [
        *("Dr. J. R. Hill left the U.S. Army.", '"Why?"', "He said no.", "3 went, e.g. by sea.", "水が来た。"),
        *("山だ。", "Title"),
    ]
    assert "".join(sentences_of(text)) == text


def test_pairs_are_the_same_in_another_process():
    code = (
        "import json, sys; from warmstart.config.data import Objective; from warmstart.data.objectives import *; "
        "print(json.dumps([unlabelled_pair(one, sys.argv[1], 'id') for one in list(Objective)[1:]]))"
    )
    printed = subprocess.run([sys.executable, "-c", code, LONG], capture_output=True, text=True, check=True).stdout
    assert json.loads(printed) == [list(made(one, LONG, "id")) for one in UNLABELLED]


def written(path, label="label"):
    lines = [
        {
            "id": f"i{n}",
            "document": f"Mill {n} was very old. The mill stood by the river for long. Then it was sold.",
            "summary": f"{label} {n}",
        }
        for n in range(40)
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def source_of(path, objective=Objective.summary, **changed):
    return load_source(
        DataSettings(name="x", kind=DataKind.files, path=str(path), id_column="id", objective=objective, **changed)
    )


@pytest.mark.parametrize("objective", UNLABELLED)
@pytest.mark.parametrize("clean", [[], ["drop_short_targets", "strip_new_marker", "collapse_whitespace"]])
def test_no_split_depends_on_a_label(objective, clean, tmp_path):
    one = source_of(written(tmp_path / "a.jsonl", "NEW: some long label here"), objective, clean=clean)
    other = source_of(written(tmp_path / "b.jsonl", "another"), objective, clean=clean)
    assert len(one.split("train")) > 20
    for split in SPLITS:
        assert list(one.split(split)) == list(other.split(split))
        assert one.split_fingerprint(split) == other.split_fingerprint(split)
        assert not any("label" in text for example in one.split(split) for text in example)


def test_rows_need_no_label_if_the_document_is_named_as_their_summary(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"document": f"Mill {n} was old. It was sold."}) for n in range(40)))
    settings = DataSettings(
        name="x", kind=DataKind.files, path=str(path), summary_column="document", objective=Objective.prefix
    )
    for example in load_source(settings).split("train"):
        assert example.document != example.summary


def test_each_objective_has_its_own_fingerprint_and_that_of_labels_stays(tmp_path, monkeypatch):
    path = written(tmp_path / "a.jsonl")
    found = {objective: source_of(path, objective).fingerprint() for objective in Objective}
    assert len(set(found.values())) == len(Objective)
    assert Counter(found) == Counter({one: source_of(path, one).fingerprint() for one in Objective})
    # A large split is not read: its hash is that of its contents.
    monkeypatch.setattr(base, "_READ_AT_MOST", 0)
    monkeypatch.setattr(base, "unlabelled_pair", None)
    assert len({source_of(path, objective).fingerprint() for objective in Objective}) == len(Objective)


def test_an_objective_reads_only_the_rows_that_are_accessed(tmp_path, monkeypatch):
    read = []

    def counted(objective, text, example_id):
        read.append(example_id)
        return unlabelled_pair(objective, text, example_id)

    monkeypatch.setattr(base, "unlabelled_pair", counted)
    for source in (
        source_of(written(tmp_path / "a.jsonl"), Objective.prefix, limit_train=5),
        load_source(DataSettings(name="written", kind=DataKind.written, objective=Objective.prefix)),
    ):
        source.fingerprint()
        assert not read
        example = source.split("train")[3]
        assert read == [example.id]
        read.clear()


def test_a_limit_takes_the_same_documents_as_without_an_objective(tmp_path):
    path = written(tmp_path / "a.jsonl")
    labelled, unlabelled = (source_of(path, one, limit_train=5) for one in (Objective.summary, Objective.prefix))
    assert [one.id for one in labelled.split("train")] == [one.id for one in unlabelled.split("train")]


def test_no_row_is_dropped_because_of_its_label(tmp_path):
    path = written(tmp_path / "a.jsonl", "two")
    steps = {"clean": ["drop_short_targets"]}
    with pytest.raises(UserError, match="train examples is left"):
        source_of(path, **steps)
    assert len(source_of(path, Objective.prefix, **steps).split("train")) == len(source_of(path).split("train"))
