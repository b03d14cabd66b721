"""An adapter of a submodel's checkpoint is merged when it is loaded; one next to a saved pair is not loaded."""

import json
import logging
import sys

import pytest
import torch
import transformers
from tiny import IDS, SOURCE_VOCABULARY, decoder_half, half, source, target
from transformers import AutoModelForSeq2SeqLM, BertModel

from warmstart import EncoderDecoderConfig, EncoderDecoderModel
from warmstart.config.model import BridgeSettings, HalfSettings
from warmstart.errors import UserError
from warmstart.model.build import build_model
from warmstart.model.submodel_config import submodel_config

peft = pytest.importorskip("peft")

CLASSES = {
    "encoder": (transformers.BertForMaskedLM, "bert", half, ["query", "value"]),
    "decoder": (transformers.GPT2LMHeadModel, "gpt2", lambda kind: half(kind, vocab_size=60), ["c_attn"]),
}


def adapted(folder, role, kind="lora", **settings):
    """A checkpoint in ``folder`` with an adapter next to it; its model with the adapter in effect."""
    model_class, name, config, targets = CLASSES[role]
    torch.manual_seed(1)
    model = model_class(config(name)).eval()
    model.save_pretrained(folder)
    given = {"target_modules": targets, "init_weights" if kind == "loha" else "init_lora_weights": False}
    config_class = {"lora": peft.LoraConfig, "loha": peft.LoHaConfig}[kind]
    model = peft.get_peft_model(model, config_class(**given, **settings)).eval()
    model.save_pretrained(folder)
    return model


@pytest.fixture
def checkpoints(tmp_path):
    transformers.BertForMaskedLM(half("bert")).save_pretrained(tmp_path / "encoder")
    transformers.GPT2LMHeadModel(half("gpt2", vocab_size=60)).save_pretrained(tmp_path / "decoder")
    return {"encoder": tmp_path / "encoder", "decoder": tmp_path / "decoder"}


def joined(checkpoints):
    return EncoderDecoderModel.from_encoder_decoder_pretrained(*checkpoints.values(), **IDS).eval()


@pytest.mark.parametrize("kind", ["lora", "loha"])
def test_an_encoders_adapter_is_merged(kind, checkpoints):
    whole = adapted(checkpoints["encoder"], "encoder", kind)
    model = joined(checkpoints)
    with torch.no_grad():
        expected = whole.get_base_model().bert(**source()).last_hidden_state
        torch.testing.assert_close(model.encoder(**source()).last_hidden_state, expected)


@pytest.mark.parametrize("settings", [{}, {"task_type": "CAUSAL_LM"}], ids=["lora", "task"])
def test_a_decoders_adapter_is_merged_and_its_missing_parameters_are_known(settings, checkpoints):
    plain = joined(checkpoints)
    whole = adapted(checkpoints["decoder"], "decoder", **settings)
    model = joined(checkpoints)
    with torch.no_grad():
        expected = whole(input_ids=target().clamp(min=5)).logits
        torch.testing.assert_close(model.decoder(input_ids=target().clamp(min=5)).logits, expected)
    assert model.new_parameter_names() == plain.new_parameter_names()
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_pair_with_merged_adapters_trains_is_saved_and_loads_again(checkpoints, tmp_path):
    for role, path in checkpoints.items():
        adapted(path, role)
    halves = [HalfSettings(role, str(path), "bert") for role, path in checkpoints.items()]
    sizes = {"encoder_vocab_size": SOURCE_VOCABULARY, "decoder_vocab_size": 60}
    model = build_model(*halves, BridgeSettings(), special_ids=IDS, **sizes).eval()
    loss = model(**source(), labels=target()).loss
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.save_pretrained(tmp_path / "pair")
    again, info = EncoderDecoderModel.from_pretrained(tmp_path / "pair", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    torch.testing.assert_close(again.eval()(**source(), labels=target()).loss, loss)


def test_an_adapter_that_replaces_a_module_whole_is_merged(checkpoints):
    whole = adapted(checkpoints["encoder"], "encoder", modules_to_save=["word_embeddings"])
    embeddings = whole.get_base_model().bert.embeddings.word_embeddings.modules_to_save["default"]
    assert torch.equal(joined(checkpoints).get_input_embeddings().weight, embeddings.weight)


def test_an_adapter_that_unties_the_embeddings_is_refused(checkpoints):
    whole = adapted(checkpoints["decoder"], "decoder", modules_to_save=["wte"])
    torch.nn.init.normal_(whole.get_base_model().transformer.wte.modules_to_save["default"].weight)
    whole.save_pretrained(checkpoints["decoder"])
    with pytest.raises(ValueError, match=r"replaces the embeddings or the LM head, which are one matrix"):
        joined(checkpoints)


def test_an_adapter_of_another_model_is_refused(checkpoints):
    adapted(checkpoints["encoder"], "encoder")
    BertModel(half("bert", num_hidden_layers=3)).save_pretrained(checkpoints["encoder"])
    with pytest.raises(ValueError, match=r"does not fit this BertModel: 4 of its parameters got no value"):
        joined(checkpoints)


def test_an_adapter_that_is_loaded_in_part_is_refused(checkpoints):
    adapted(checkpoints["decoder"], "decoder", use_dora=True)  # transformers 5.23 and 5.24 lose its magnitudes
    with pytest.raises(ValueError, match=r"does not fit this GPT2LMHeadModel: 2 of its .*lora_magnitude_vector"):
        joined(checkpoints)


def test_an_adapter_without_its_model_is_refused_by_name(tmp_path, checkpoints):
    adapted(tmp_path / "whole", "encoder").save_pretrained(tmp_path / "only")
    assert not (tmp_path / "only" / "config.json").exists()
    with pytest.raises(UserError, match=r"only is only an adapter of .*Merge it with peft"):
        submodel_config(HalfSettings("mine", str(tmp_path / "only"), "bert"), "encoder")
    checkpoints["encoder"] = tmp_path / "only"
    with pytest.raises(ValueError, match="is only an adapter of"):
        joined(checkpoints)


def test_without_peft_it_is_refused_before_any_weight_is_read(checkpoints, monkeypatch):
    adapted(checkpoints["encoder"], "encoder")
    monkeypatch.setitem(sys.modules, "peft", None)  # as Python has it where the package is not installed
    (checkpoints["encoder"] / "model.safetensors").unlink()
    for load in (
        lambda: submodel_config(HalfSettings("mine", str(checkpoints["encoder"]), "bert"), "encoder"),
        lambda: joined(checkpoints),
    ):
        with pytest.raises(UserError, match=r"adapter_config.json.*pip install 'warmstart\[lora\]'"):
            load()


@pytest.mark.parametrize("auto", [EncoderDecoderModel, AutoModelForSeq2SeqLM])
def test_an_adapter_next_to_a_saved_pair_is_reported_and_not_loaded(auto, tmp_path, caplog):
    pair = EncoderDecoderModel(EncoderDecoderConfig(encoder=half("bert"), decoder=decoder_half("gpt2"), **IDS)).eval()
    pair.save_pretrained(tmp_path)
    stray = peft.get_peft_model(pair.encoder, peft.LoraConfig(target_modules=["query"], init_lora_weights=False))
    stray.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == "LORA"
    with caplog.at_level(logging.WARNING, "warmstart"):
        again = auto.from_pretrained(tmp_path)
    assert "adapter_config.json" in caplog.text
    assert not any("lora" in name for name, _ in again.named_parameters())
