"""The adapter of a submodel's checkpoint is merged; one next to a saved joint model is not loaded."""

import json
import logging
import sys

import pytest
import torch
import transformers
from tiny import IDS, SOURCE_VOCABULARY, small_config, small_decoder_config, source, target
from transformers import AutoModelForSeq2SeqLM, BertModel

from warmstart import EncoderDecoderConfig, EncoderDecoderModel
from warmstart.config.model import BridgeSettings, SubmodelSettings
from warmstart.errors import UserError
from warmstart.model.build import build_model
from warmstart.model.submodel_config import submodel_config

peft = pytest.importorskip("peft")

CLASSES = {
    "encoder": (transformers.BertForMaskedLM, "bert", small_config, ["query", "value"]),
    "decoder": (transformers.GPT2LMHeadModel, "gpt2", lambda kind: small_config(kind, vocab_size=60), ["c_attn"]),
}


def adapted(folder, role, kind="lora", **settings):
    """Save a checkpoint with an adapter in ``folder``, and return the model with the active adapter."""
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
    transformers.BertForMaskedLM(small_config("bert")).save_pretrained(tmp_path / "encoder")
    transformers.GPT2LMHeadModel(small_config("gpt2", vocab_size=60)).save_pretrained(tmp_path / "decoder")
    return {"encoder": tmp_path / "encoder", "decoder": tmp_path / "decoder"}


def joined(checkpoints):
    return EncoderDecoderModel.from_encoder_decoder_pretrained(*checkpoints.values(), **IDS).eval()


@pytest.mark.parametrize("kind", ["lora", "loha"])
def test_adapter_of_an_encoder_is_merged(kind, checkpoints):
    whole = adapted(checkpoints["encoder"], "encoder", kind)
    model = joined(checkpoints)
    with torch.no_grad():
        expected = whole.get_base_model().bert(**source()).last_hidden_state
        torch.testing.assert_close(model.encoder(**source()).last_hidden_state, expected)


@pytest.mark.parametrize("settings", [{}, {"task_type": "CAUSAL_LM"}], ids=["lora", "task"])
def test_adapter_of_a_decoder_is_merged_and_missing_parameters_are_recorded(settings, checkpoints):
    plain = joined(checkpoints)
    whole = adapted(checkpoints["decoder"], "decoder", **settings)
    model = joined(checkpoints)
    with torch.no_grad():
        expected = whole(input_ids=target().clamp(min=5)).logits
        torch.testing.assert_close(model.decoder(input_ids=target().clamp(min=5)).logits, expected)
    assert model.new_parameter_names() == plain.new_parameter_names()
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_model_with_merged_adapters_is_trained_saved_and_loaded(checkpoints, tmp_path):
    for role, path in checkpoints.items():
        adapted(path, role)
    submodels = [SubmodelSettings(role, str(path), "bert") for role, path in checkpoints.items()]
    sizes = {"encoder_vocab_size": SOURCE_VOCABULARY, "decoder_vocab_size": 60}
    model = build_model(*submodels, BridgeSettings(), special_ids=IDS, **sizes).eval()
    loss = model(**source(), labels=target()).loss
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.save_pretrained(tmp_path / "pair")
    again, info = EncoderDecoderModel.from_pretrained(tmp_path / "pair", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    torch.testing.assert_close(again.eval()(**source(), labels=target()).loss, loss)


def test_adapter_that_replaces_a_module_is_merged(checkpoints):
    whole = adapted(checkpoints["encoder"], "encoder", modules_to_save=["word_embeddings"])
    embeddings = whole.get_base_model().bert.embeddings.word_embeddings.modules_to_save["default"]
    assert torch.equal(joined(checkpoints).get_input_embeddings().weight, embeddings.weight)


def test_an_adapter_that_unties_the_embeddings_is_refused(checkpoints):
    whole = adapted(checkpoints["decoder"], "decoder", modules_to_save=["wte"])
    torch.nn.init.normal_(whole.get_base_model().transformer.wte.modules_to_save["default"].weight)
    whole.save_pretrained(checkpoints["decoder"])
    with pytest.raises(ValueError, match="replaces the embeddings or the LM head, which share one matrix"):
        joined(checkpoints)


def test_an_adapter_of_another_model_is_refused(checkpoints):
    adapted(checkpoints["encoder"], "encoder")
    BertModel(small_config("bert", num_hidden_layers=3)).save_pretrained(checkpoints["encoder"])
    with pytest.raises(ValueError, match=r"does not fit this BertModel: 4 of its parameters got no value"):
        joined(checkpoints)


def test_partially_loaded_adapter_is_refused(checkpoints):
    adapted(checkpoints["decoder"], "decoder", use_dora=True)  # transformers 5.23 and 5.24 do not load its magnitudes
    with pytest.raises(ValueError, match=r"does not fit this GPT2LMHeadModel: 2 of its .*lora_magnitude_vector"):
        joined(checkpoints)


def test_adapter_without_its_model_is_refused(tmp_path, checkpoints):
    adapted(tmp_path / "whole", "encoder").save_pretrained(tmp_path / "only")
    assert not (tmp_path / "only" / "config.json").exists()
    with pytest.raises(UserError, match=r"only is only an adapter of .*Merge it with peft"):
        submodel_config(SubmodelSettings("mine", str(tmp_path / "only"), "bert"), "encoder")
    checkpoints["encoder"] = tmp_path / "only"
    with pytest.raises(ValueError, match="is only an adapter of"):
        joined(checkpoints)


def test_adapter_without_peft_is_refused_before_any_weight_is_read(checkpoints, monkeypatch):
    adapted(checkpoints["encoder"], "encoder")
    monkeypatch.setitem(sys.modules, "peft", None)  # makes the import fail
    (checkpoints["encoder"] / "model.safetensors").unlink()
    for load in (
        lambda: submodel_config(SubmodelSettings("mine", str(checkpoints["encoder"]), "bert"), "encoder"),
        lambda: joined(checkpoints),
    ):
        with pytest.raises(UserError, match=r"adapter_config.json.*pip install '\.\[lora\]'"):
            load()


@pytest.mark.parametrize("auto", [EncoderDecoderModel, AutoModelForSeq2SeqLM])
def test_adapter_next_to_a_saved_model_is_reported_and_not_loaded(auto, tmp_path, caplog):
    pair = EncoderDecoderModel(
        EncoderDecoderConfig(encoder=small_config("bert"), decoder=small_decoder_config("gpt2"), **IDS)
    ).eval()
    pair.save_pretrained(tmp_path)
    stray = peft.get_peft_model(pair.encoder, peft.LoraConfig(target_modules=["query"], init_lora_weights=False))
    stray.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == "LORA"
    with caplog.at_level(logging.WARNING, "warmstart"):
        again = auto.from_pretrained(tmp_path)
    assert "adapter_config.json" in caplog.text
    assert not any("lora" in name for name, _ in again.named_parameters())
