"""Marked sentences: the ids of BertSum's code, by hand on short texts, and the same after saving."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import BertTokenizerFast

from warmstart.config.data import DataKind, DataSettings
from warmstart.data.datamodule import SummarizationDataModule
from warmstart.data.tokenization.pair import TokenizerPair
from warmstart.data.tokenization.sentence_marks import SentenceMarks, original_sentences, separator_id
from warmstart.errors import UserError
from warmstart.model.segments import segment_ids
from warmstart.tasks import evaluate

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused2]", "a", "b", "c", "##d", "."]
MARKS = SentenceMarks(source=True, target=True)
DOCUMENT = "A b. C.\nBd a."


@pytest.fixture
def pair(tmp_path):
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(WORDS) + "\n")
    tokenizer = BertTokenizerFast(str(vocabulary), do_lower_case=True)
    return TokenizerPair(tokenizer, tokenizer, MARKS)


def tokens(ids):
    return " ".join(WORDS[i] for i in ids)


def test_source_ids_and_interval_segments_by_hand(pair):
    (ids,) = pair.encode_sources([DOCUMENT], 50)
    assert tokens(ids) == "[CLS] a b . [SEP] [CLS] c . [SEP] [CLS] b ##d a . [SEP]"
    segments = [0, 0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    assert segment_ids(torch.tensor([ids]), pair.sentence_start_id)[0].tolist() == segments


@pytest.mark.parametrize(
    ("length", "wanted"),
    [
        (15, "[CLS] a b . [SEP] [CLS] c . [SEP] [CLS] b ##d a . [SEP]"),
        (14, "[CLS] a b . [SEP] [CLS] c . [SEP] [CLS] b ##d a [SEP]"),  # the last id is the separator, as in BertSum
        (9, "[CLS] a b . [SEP] [CLS] c . [SEP]"),
        (3, "[CLS] a [SEP]"),
    ],
)
def test_a_long_source_is_cut_and_ends_in_a_separator(length, wanted, pair):
    assert tokens(pair.encode_sources([DOCUMENT], length)[0]) == wanted


def test_a_source_of_many_sentences_is_read_to_its_length(pair):
    (ids,) = pair.encode_sources(["A b.\n" * 100], 64)
    assert len(ids) == 64
    (ids,) = pair.encode_sources(["A b.\n" * 100], 1000)
    assert len(ids) == 500


def test_a_source_without_text_is_one_pad_token(pair):
    assert pair.encode_sources(["", " \n"], 8) == [[0], [0]]


def test_target_separator_becomes_a_line_break(pair):
    (ids,) = pair.encode_targets(["A b.\nC."], 20)
    assert tokens(ids) == "a b . [unused2] c . [SEP]"
    assert pair.decode([ids]) == ["a b.\nc."]
    assert pair.decode([[5, 6, 5, 5, 8, 3]]) == ["a\nc"]  # no empty lines
    assert tokens(pair.encode_targets(["A b.\nC."], 5)[0]) == "a b . [unused2] [SEP]"


def test_selected_sentences_are_written_as_in_the_document():
    document = "The caf\u00e9 closed. A well-known man (aged 9) left.\nIt rained."
    summary = "a well - known man ( aged 9 ) left.\nthe cafe closed.\nit rai\nnot there"
    assert original_sentences(summary, document).splitlines() == [
        "A well-known man (aged 9) left.",
        "The caf\u00e9 closed.",
        "It rained.",
        "not there",
    ]


def test_marks_are_saved_and_belong_to_the_fingerprint(pair, tmp_path):
    pair.save(tmp_path / "saved")
    loaded = TokenizerPair.load(tmp_path / "saved")
    assert loaded.marks == MARKS
    assert loaded.fingerprint() == pair.fingerprint()
    plain = TokenizerPair(pair.source, pair.target)
    assert plain.fingerprint() != pair.fingerprint()
    assert plain.sentence_start_id is None
    assert tokens(plain.encode_sources([DOCUMENT], 50)[0]) == "[CLS] a b . c . b ##d a . [SEP]"


def test_a_tokenizer_without_the_tokens_is_refused(pair):
    with pytest.raises(UserError, match=r"target_form=plain"):
        separator_id(_Bare(mask_token_id=None))
    with pytest.raises(UserError, match=r"source_form=plain"):
        TokenizerPair(_Bare(cls_token_id=None, bos_token_id=1, sep_token_id=None, eos_token_id=1), pair.target, MARKS)


class _Bare:
    unk_token_id = 0
    all_special_ids = ()

    def __init__(self, **ids):
        vars(self).update(ids)

    def __len__(self):
        return 9

    def convert_tokens_to_ids(self, token):
        return 0


def test_labels_of_sentences_do_not_count_as_a_truncated_summary(pair, tmp_path):
    rows = [{"document": f"{'a b. ' * 20}{word}.", "summary": word} for word in ("c", "b a", "b a b a b a b a b a")]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    settings = DataSettings(name="mine", kind=DataKind.files, path=str(path), test_path=str(path), max_target_length=8)
    labelled = TokenizerPair(pair.source, pair.target, SentenceMarks(source=True, target=True, labels=True))
    data = SummarizationDataModule(settings, labelled, seed=0)
    assert (data.tokenized("test").target_lengths > 8).all()
    assert data.row_counts()["test"]["truncated_summaries"] == 1


@pytest.mark.parametrize("labels", [False, True])
def test_likelihoods_of_sentence_labels_are_not_converted_to_bits_per_byte(labels, pair, tmp_path, settings_of):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"document": f"{word}. a b.", "summary": word}) for word in ("c", "b a")))
    settings = DataSettings(name="mine", kind=DataKind.files, path=str(path), test_path=str(path))
    marked = TokenizerPair(pair.source, pair.target, SentenceMarks(source=True, target=True, labels=labels))
    data = SummarizationDataModule(settings, marked, seed=0)
    evaluation = SimpleNamespace(settings=settings_of(), data=data, split="test", training=[])
    nats = dict.fromkeys(("own", "shuffled_document", "decoder_alone"), np.ones(2))
    judgement = evaluate._judge(evaluation, SimpleNamespace(predictions=["c", "a"], likelihoods=nats, alone="a"))
    assert judgement.metrics.get("test/bits_per_byte_examples") == (None if labels else 2)
