"""Weights shared by the halves: checkpoints of transformers 4, and what save and load keep."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from transformers import BertConfig, GPT2Config

from warmstart import EncoderDecoderConfig, EncoderDecoderModel

FIXTURES = Path(__file__).parents[1] / "fixtures"
SIZE = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 24,
}


def logits_of(model, expected):
    source = torch.tensor(expected["source"])
    target = torch.tensor(expected["target"])
    with torch.no_grad():
        return model(input_ids=source, attention_mask=torch.ones_like(source), decoder_input_ids=target).logits


@pytest.mark.parametrize("name", ["bert_share", "roberta_share"])
def test_a_tied_checkpoint_of_transformers_4_loads_whole(name):
    model, info = EncoderDecoderModel.from_pretrained(FIXTURES / name, output_loading_info=True)
    expected = json.loads((FIXTURES / name / "expected.json").read_text())
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    torch.testing.assert_close(logits_of(model.eval(), expected), torch.tensor(expected["logits"]))
    encoder = {id(p) for p in model.encoder.parameters()}
    assert encoder <= {id(p) for p in model.decoder.parameters()}


def test_upstream_still_loads_it_wrong():
    """The defect that the test above guards against; when this fails, transformers has mended it."""
    expected = json.loads((FIXTURES / "bert_share" / "expected.json").read_text())
    upstream = transformers.EncoderDecoderModel.from_pretrained(FIXTURES / "bert_share").eval()
    assert (logits_of(upstream, expected) - torch.tensor(expected["logits"])).abs().max() > 1e-2


def test_embeddings_shared_by_hand_survive_save_and_load(tmp_path):
    model = EncoderDecoderModel(EncoderDecoderConfig(encoder=BertConfig(**SIZE), decoder=BertConfig(**SIZE)))
    model.encoder.embeddings.word_embeddings = model.decoder.bert.embeddings.word_embeddings
    model.save_pretrained(tmp_path)
    reopened = EncoderDecoderModel.from_pretrained(tmp_path)
    assert reopened.encoder.embeddings.word_embeddings.weight is reopened.decoder.bert.embeddings.word_embeddings.weight
    torch.testing.assert_close(reopened.get_input_embeddings().weight, model.get_input_embeddings().weight)


def test_tied_embeddings_are_one_parameter():
    config = EncoderDecoderConfig(encoder=BertConfig(**SIZE), decoder=BertConfig(**SIZE), tie_embeddings=True)
    model = EncoderDecoderModel(config)
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight


def test_halves_that_cannot_share_are_refused():
    decoder = GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2)
    config = EncoderDecoderConfig(encoder=BertConfig(**SIZE), decoder=decoder, tie_encoder_decoder=True)
    with pytest.raises(ValueError, match="one architecture"):
        EncoderDecoderModel(config)


def test_resizing_keeps_shared_embeddings_shared():
    config = EncoderDecoderConfig(encoder=BertConfig(**SIZE), decoder=BertConfig(**SIZE), tie_embeddings=True)
    model = EncoderDecoderModel(config)
    model.resize_token_embeddings(48)
    assert model.get_input_embeddings().weight.shape == (48, 16)
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight


def test_resizing_one_of_two_vocabularies_needs_its_name():
    decoder = BertConfig(**(SIZE | {"vocab_size": 60}))
    model = EncoderDecoderModel(EncoderDecoderConfig(encoder=BertConfig(**SIZE), decoder=decoder))
    with pytest.raises(ValueError, match="half="):
        model.resize_token_embeddings(64)
    model.resize_token_embeddings(64, half="decoder")
    assert model.get_output_embeddings().weight.shape[0] == 64
    assert model.get_input_embeddings().weight.shape[0] == 40
