"""Unsupported checkpoints are refused because of their config, with the reason."""

import json

import pytest
import torch
import transformers
from safetensors.torch import save_file
from tiny import IDS, small_config
from transformers import BertModel, GPT2LMHeadModel

from warmstart import EncoderDecoderModel
from warmstart.compatibility.tiny_configs import decoder_types, encoder_types
from warmstart.config.model import SubmodelSettings
from warmstart.errors import UserError
from warmstart.model.pretrained import check_trainable
from warmstart.model.submodel_config import submodel_config

QUANTIZED = {
    "gptq": {"quant_method": "gptq", "bits": 4},
    "awq": {"quant_method": "awq", "bits": 4},
    "bitsandbytes": {"load_in_4bit": True},
    "fp8": {"quant_method": "fp8"},
    "compressed-tensors": {"quant_method": "compressed-tensors", "config_groups": {}},
    "a-later-one": {"quant_method": "a-later-one"},
}


@pytest.fixture
def paths(tmp_path):
    BertModel(small_config("bert")).save_pretrained(tmp_path / "encoder")
    GPT2LMHeadModel(small_config("gpt2", vocab_size=60)).save_pretrained(tmp_path / "decoder")
    return [tmp_path / "encoder", tmp_path / "decoder"]


def change(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def refused(paths, reason):
    """Check that the config is refused by the tasks, and by the model class before it reads a weight."""
    for path in paths:
        (path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=rf"decoder=mine: {reason}"):
        submodel_config(SubmodelSettings("mine", str(paths[1]), "gpt2"), "decoder")
    with pytest.raises(ValueError, match=reason):
        EncoderDecoderModel.from_encoder_decoder_pretrained(*paths, **IDS)


@pytest.mark.parametrize("method", QUANTIZED)
def test_quantized_weights_are_refused(method, paths):
    change(paths[1], quantization_config=QUANTIZED[method])
    refused(paths, rf"its weights are quantized \({method}\).*Use the checkpoint that they were made from")


def test_unknown_activation_is_refused(paths):
    change(paths[1], activation_function="gelu_newer")
    refused(
        paths, "activation_function='gelu_newer' in this gpt2 config is not an activation of the installed transformers"
    )


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("bert", {"hidden_act": "swishy"}),
        ("t5", {"feed_forward_proj": "gated-swishy"}),
        ("t5gemma", {"encoder": {"hidden_activation": "swishy"}}),
        ("distilbert", {"activation": "swishy"}),
    ],
)
def test_activations_are_checked_under_every_field_name(kind, values):
    with pytest.raises(ValueError, match="swishy"):
        check_trainable(transformers.AutoConfig.for_model(kind, **values))


def test_default_activation_of_every_type_is_accepted():
    for kind in {*decoder_types(), *encoder_types()} - {"gemma4_assistant"}:  # it has no default config
        config = transformers.AutoConfig.for_model(kind)
        if getattr(config, "quantization_config", None) is None:
            check_trainable(config)


def test_quantized_matrices_without_quantization_config_are_refused(paths):
    weights = GPT2LMHeadModel(small_config("gpt2", vocab_size=60)).state_dict()
    weights = {name: value.clone() for name, value in weights.items() if name != "lm_head.weight"}
    packed = weights.pop("transformer.h.0.attn.c_attn.weight")
    weights["transformer.h.0.attn.c_attn.qweight"] = torch.zeros_like(packed, dtype=torch.int32)
    save_file(weights, paths[1] / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"quantized \(GPTQ or AWQ\)"):
        EncoderDecoderModel.from_encoder_decoder_pretrained(*paths, **IDS)
