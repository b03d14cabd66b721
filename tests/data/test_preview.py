"""The first pairs as the model reads them: cut, with token counts."""

from dataclasses import replace

from warmstart.config.data import DataKind, DataSettings
from warmstart.data.datamodule import SummarizationDataModule
from warmstart.data.preview import first_pairs
from warmstart.data.sources.base import Example, Source
from warmstart.data.sources.load import load_source

SETTINGS = DataSettings(name="written", kind=DataKind.written, max_source_length=12, max_target_length=6)


def test_pairs_are_cut_to_the_lengths_of_the_model_and_counted(pair):
    source = load_source(SETTINGS)
    train = source.split("train")
    previewed = first_pairs(source, pair, SETTINGS)
    assert [one.id for one in previewed] == [example.id for example in train[:3]]
    for one, example in zip(previewed, train, strict=False):
        assert (one.document_tokens, one.summary_tokens) == (12, 6)
        whole = pair.encode_sources([example.document], 10_000)[0]
        assert one.document_tokens_uncut == len(whole) > 12
        assert one.summary_tokens_uncut == len(pair.encode_targets([example.summary], 10_000)[0]) > 6
        # The BERT tokenizer loses case; "[CLS]", "[SEP]" and the end token are not shown.
        assert example.document.lower().replace(" ", "").startswith(one.document.replace(" ", ""))
        assert example.summary.startswith(one.summary)
        assert one.document
        assert one.summary


def test_short_texts_are_whole_and_unknown_tokens_are_shown(pair):
    source = Source({"test": [Example("7", "a ☃ a", "Of it.")]}, name="mine", report={})
    (one,) = first_pairs(source, pair, replace(SETTINGS, max_source_length=100, max_target_length=100))
    assert (one.id, one.document, one.summary) == ("7", "a [UNK] a", "Of it.")
    assert one.document_tokens == one.document_tokens_uncut == 5
    assert one.summary_tokens == one.summary_tokens_uncut


def test_a_data_module_is_previewed_like_its_texts(pair):
    module = SummarizationDataModule(SETTINGS, pair, seed=1)
    assert first_pairs(module, pair, SETTINGS, count=5) == first_pairs(module.source, pair, SETTINGS, 5)
    assert len(first_pairs(module, pair, SETTINGS, count=5)) == 5


def test_a_preview_counts_the_windows_of_a_document(pair):
    settings = replace(SETTINGS, source_windows=3, window_overlap=2)
    source = load_source(settings)
    for one in first_pairs(source, pair, settings):
        whole = len(pair.encode_sources([one_document(source, one.id)], 10_000)[0])
        assert one.windows == 3
        assert one.document_tokens == 36
        assert one.document_tokens_uncut > whole > 36 - 3 * 2
    (short,) = first_pairs(source, pair, replace(settings, max_source_length=500), count=1)
    assert (short.windows, short.document_tokens) == (1, short.document_tokens_uncut)


def one_document(source, index):
    return next(example.document for example in source.split("train") if example.id == index)
