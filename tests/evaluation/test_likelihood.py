"""Likelihoods are in the order of the examples, by source, and do not change the model."""

import numpy as np
import pytest
import torch
from transformers import BertConfig

from warmstart import EncoderDecoderConfig, EncoderDecoderModel
from warmstart.config.data import DataKind, DataSettings
from warmstart.data.datamodule import SummarizationDataModule
from warmstart.data.tokenization.pair import TokenizerPair
from warmstart.data.tokenization.sentence_marks import SentenceMarks
from warmstart.data.tokenization.train import Family, train_tokenizer
from warmstart.evaluation.controls import derangement
from warmstart.evaluation.likelihood import bits_per_byte, in_order, likelihoods
from warmstart.model.extractive import ExtractiveConfig, ExtractiveModel
from warmstart.model.selector import SelectorConfig


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    ids = {"decoder_start_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    submodel = BertConfig(vocab_size=2000, initializer_range=0.5, **size)
    return EncoderDecoderModel(EncoderDecoderConfig(encoder=submodel, decoder=submodel, **ids)).train()


def test_each_reference_with_its_own_document_another_and_none(model, documents, references, tmp_path):
    tokenizer = train_tokenizer(Family.wordpiece, [*documents, *references], 600)
    pair = TokenizerPair(tokenizer, tokenizer)
    lengths = {"max_source_length": 32, "max_target_length": 12, "evaluation_max_tokens": 100}
    settings = DataSettings(name="written", kind=DataKind.written, cache_dir=str(tmp_path), **lengths)
    data = SummarizationDataModule(settings, pair, seed=0)
    found = likelihoods(model, data, "test", seed=5)
    assert model.training
    shares = [likelihoods(model, data, "test", seed=5, rank=rank, world_size=3) for rank in range(3)]
    together = in_order(shares)
    for name, column in together.items():
        assert column.tolist() == [found[name][i] for i in range(8)]
    with pytest.raises(ValueError, match="no rank"):
        in_order(shares[1:])
    with pytest.raises(ValueError, match="two ranks"):
        in_order([*shares, shares[1]])
    model.eval()
    order, rows = derangement(8, 5), data.tokenized("test")
    for i in range(8):
        for name, document in (("own", i), ("shuffled_document", int(order[i]))):
            ids, labels = (torch.tensor(np.array(x, dtype=np.int64))[None] for x in (rows[document][1], rows[i][2]))
            assert found[name][i] == pytest.approx(float(model(ids, labels=labels).loss), rel=1e-4)
        start = torch.cat([torch.tensor([[1]]), labels[:, :-1]], dim=1)
        alone = torch.nn.functional.cross_entropy(model.decoder(start).logits[0], labels[0])
        assert found["decoder_alone"][i] == pytest.approx(float(alone), rel=1e-4)
    model.train()


def test_labels_of_sentences_are_not_compared_with_another_document_or_none(documents, references, tmp_path):
    """Another document has other sentences, in another number: a mean over some of the labels is another question."""
    tokenizer = train_tokenizer(Family.wordpiece, [*documents, *references], 600)
    pair = TokenizerPair(tokenizer, tokenizer, SentenceMarks(source=True, target=True, labels=True))
    size = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}
    encoder = BertConfig(vocab_size=2000, num_hidden_layers=1, **size, sentence_start_id=pair.sentence_start_id)
    ids = {name: i for name, i in pair.sentence_ids().items() if name != "sentence_start_id"}
    config = ExtractiveConfig(encoder=encoder, decoder=SelectorConfig(**size), **ids, **pair.special_ids())
    settings = DataSettings(name="written", kind=DataKind.written, cache_dir=str(tmp_path), max_source_length=32)
    selector = ExtractiveModel(config)
    found = likelihoods(selector, SummarizationDataModule(settings, pair, seed=0), "test", seed=5)
    assert found.keys() == {"own"}
    assert np.isfinite(list(found["own"].values())).all()


def test_bits_per_byte_are_those_of_the_whole_text_and_missing_where_the_tokenizer_loses_a_part():
    nats = np.array([2.0, 2.0, 2.0, 2.0])
    references = ["A storm.", "Ein  Sturm\nin Köln", "A storm.", ""]
    found = bits_per_byte(nats, [3, 5, 3, 1], ["A storm.", "Ein Sturm in Köln", "a storm.", ""], references)
    assert found[0] == pytest.approx(2 * 3 / np.log(2) / 8)
    assert found[1] == pytest.approx(2 * 5 / np.log(2) / 18)  # ö has two bytes, and blanks count once
    assert np.isnan(found[2:]).all()


def test_a_tokenizer_that_cuts_text_into_smaller_tokens_has_the_same_bits():
    whole, halves = (bits_per_byte(np.array([4 / n]), [n], ["ab cd"], ["ab cd"]) for n in (2, 4))
    assert whole == pytest.approx(halves)
