"""Weights that encoder and decoder share: checkpoints of transformers 4, saving and loading."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from transformers import BertConfig, GPT2Config, MarianConfig

from warmstart import EncoderDecoderConfig, EncoderDecoderModel
from warmstart.config.model import BridgeSettings, Share, SubmodelSettings, Weights, WhichSubmodels, fault_of_sharing
from warmstart.errors import UserError
from warmstart.model.bridge.tying import shared_across_halves
from warmstart.model.build import build_model
from warmstart.model.parameters import parameter_counts

FIXTURES = Path(__file__).parents[2] / "fixtures"
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
def test_tied_checkpoint_of_transformers_4_loads_completely(name):
    model, info = EncoderDecoderModel.from_pretrained(FIXTURES / name, output_loading_info=True)
    expected = json.loads((FIXTURES / name / "expected.json").read_text())
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    torch.testing.assert_close(logits_of(model.eval(), expected), torch.tensor(expected["logits"]))
    encoder = {id(p) for p in model.encoder.parameters()}
    assert encoder <= {id(p) for p in model.decoder.parameters()}


def test_upstream_still_loads_tied_checkpoints_wrong():
    """If this fails, transformers has fixed the defect."""
    expected = json.loads((FIXTURES / "bert_share" / "expected.json").read_text())
    upstream = transformers.EncoderDecoderModel.from_pretrained(FIXTURES / "bert_share").eval()
    assert (logits_of(upstream, expected) - torch.tensor(expected["logits"])).abs().max() > 1e-2


def test_manually_shared_embeddings_are_saved_and_loaded(tmp_path):
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


def test_sharing_between_different_architectures_is_refused():
    decoder = GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2)
    config = EncoderDecoderConfig(encoder=BertConfig(**SIZE), decoder=decoder, tie_encoder_decoder=True)
    with pytest.raises(ValueError, match="same architecture"):
        EncoderDecoderModel(config)


def test_resizing_keeps_shared_embeddings_shared():
    config = EncoderDecoderConfig(encoder=BertConfig(**SIZE), decoder=BertConfig(**SIZE), tie_embeddings=True)
    model = EncoderDecoderModel(config)
    model.resize_token_embeddings(48)
    assert model.get_input_embeddings().weight.shape == (48, 16)
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight


@pytest.mark.parametrize("shared", ["tie_embeddings", "tie_encoder_decoder"])
@pytest.mark.parametrize("submodel", ["encoder", "decoder"])
def test_resizing_one_submodel_resizes_shared_embeddings_in_both(shared, submodel, tmp_path):
    config = EncoderDecoderConfig(encoder=BertConfig(**SIZE), decoder=BertConfig(**SIZE), **{shared: True})
    model = EncoderDecoderModel(config)
    model.resize_token_embeddings(48, submodel=submodel)
    assert model.config.encoder.vocab_size == model.config.decoder.vocab_size == 48
    assert model.encoder.get_input_embeddings().num_embeddings == 48
    model.save_pretrained(tmp_path)
    reopened = EncoderDecoderModel.from_pretrained(tmp_path)
    assert torch.equal(reopened.get_output_embeddings().weight, model.get_input_embeddings().weight)


def test_a_resized_marian_decoder_is_saved_and_loaded(tmp_path):
    sizes = {"d_model": 16, "decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 24}
    decoder = MarianConfig(vocab_size=40, decoder_vocab_size=40, pad_token_id=0, **sizes)
    model = EncoderDecoderModel(EncoderDecoderConfig(encoder=BertConfig(**SIZE), decoder=decoder))
    model.resize_token_embeddings(48, submodel="decoder")
    model.save_pretrained(tmp_path)
    reopened = EncoderDecoderModel.from_pretrained(tmp_path)
    assert torch.equal(reopened.get_output_embeddings().weight, model.get_output_embeddings().weight)


def test_resizing_one_of_two_vocabularies_needs_a_choice():
    decoder = BertConfig(**(SIZE | {"vocab_size": 60}))
    model = EncoderDecoderModel(EncoderDecoderConfig(encoder=BertConfig(**SIZE), decoder=decoder))
    with pytest.raises(ValueError, match="submodel="):
        model.resize_token_embeddings(64)
    model.resize_token_embeddings(64, submodel="decoder")
    assert model.get_output_embeddings().weight.shape[0] == 64
    assert model.get_input_embeddings().weight.shape[0] == 40


BERT = BertConfig(**SIZE)
IDS = {"decoder_start_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SIZES = {"encoder_vocab_size": 40, "decoder_vocab_size": 40}
EMBEDDINGS, QUERY = "embeddings.word_embeddings.weight", "encoder.layer.0.attention.self.query.weight"


@pytest.fixture
def checkpoint(tmp_path):
    """A BERT checkpoint with LM head, and its values by the encoder's parameter names."""
    whole = transformers.BertForMaskedLM(BERT)
    for parameter in whole.parameters():
        torch.nn.init.normal_(parameter)
    whole.save_pretrained(tmp_path / "bert")
    return tmp_path / "bert", whole.bert.state_dict()


def bert(path, weights="pretrained", **values):
    architecture = {name: value for name, value in SIZE.items() if name != "vocab_size"}
    return SubmodelSettings("bert", str(path), "bert", weights=Weights(weights), architecture=architecture, **values)


def build(encoder, decoder, **bridge):
    return build_model(encoder, decoder, BridgeSettings(**bridge), special_ids=IDS, **SIZES)


@pytest.mark.parametrize("share", [Share.weights, Share.embeddings])
@pytest.mark.parametrize(("encoder", "decoder"), [("pretrained", "random"), ("random", "pretrained")])
def test_parameters_shared_with_a_pretrained_submodel_are_pretrained(checkpoint, share, encoder, decoder):
    path, values = checkpoint
    model = build(bert(path, encoder), bert(path, decoder), share=share)
    shared, new = shared_across_halves(model), model.new_parameter_names()
    assert len(shared) == (len(values) if share is Share.weights else 1)
    named = dict(model.named_parameters())
    assert [name for name in shared if not torch.equal(named[name], values[name.removeprefix("encoder.")])] == []
    assert not new & shared.keys()
    assert "decoder.bert.encoder.layer.0.crossattention.self.query.weight" in new
    if share is Share.embeddings:
        assert (f"encoder.{QUERY}" in new) == (encoder == "random")
        assert (f"decoder.bert.{QUERY}" in new) == (decoder == "random")
    counts = parameter_counts(model)
    assert counts["pretrained"] + counts["new"] == counts["total"]


def test_parameters_shared_by_untrained_submodels_are_new(tmp_path):
    for share in (Share.weights, Share.embeddings):
        model = build(bert("nowhere", "random"), bert("nowhere", "random"), share=share)
        assert parameter_counts(model)["pretrained"] == 0


def test_shared_parameters_are_new_if_both_submodels_are_marked():
    for order in (("encoder.", "decoder."), ("decoder.", "encoder.")):
        model = EncoderDecoderModel(EncoderDecoderConfig(encoder=BERT, decoder=BERT, tie_encoder_decoder=True))
        model.mark_new(order[0])
        assert not model.new_parameter_names() & shared_across_halves(model).keys()
        model.mark_new(order[1])
        assert parameter_counts(model)["pretrained"] == 0


@pytest.mark.parametrize("share", [Share.weights, Share.embeddings])
def test_sharing_between_two_checkpoints_is_refused(checkpoint, tmp_path, share):
    path, values = checkpoint
    transformers.BertForMaskedLM(BERT).save_pretrained(tmp_path / "other")
    same = build(bert(path), bert(path), share=share)
    assert torch.equal(same.get_input_embeddings().weight, values[EMBEDDINGS])
    for other in (bert(tmp_path / "other"), bert(path, revision="v2")):
        with pytest.raises(UserError, match=rf"bridge\.share={share.value} .* two checkpoints"):
            build(bert(path), other, share=share)
        assert fault_of_sharing(bert(path), other, BridgeSettings(share=share))
        assert fault_of_sharing(bert(path), other, BridgeSettings()) is None


@pytest.mark.parametrize("option", ["freeze", "lora"])
def test_shared_embeddings_of_one_frozen_submodel_are_refused(checkpoint, option):
    path, _ = checkpoint
    for submodel in (WhichSubmodels.encoder, WhichSubmodels.decoder):
        with pytest.raises(UserError, match=rf"bridge\.share=embeddings .*bridge\.{option}={submodel.value}"):
            build(bert(path), bert(path), share=Share.embeddings, **{option: submodel})
    model = build(bert(path), bert(path), share=Share.embeddings, **{option: WhichSubmodels.both})
    assert not model.get_input_embeddings().weight.requires_grad
    other = {"freeze": "lora", "lora": "freeze"}[option]
    model = build(
        bert(path),
        bert(path),
        share=Share.embeddings,
        **{option: WhichSubmodels.encoder, other: WhichSubmodels.decoder},
    )
    assert not model.get_output_embeddings().weight.requires_grad
