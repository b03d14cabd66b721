"""A loaded model has all values, including buffers that no checkpoint contains."""

import torch
from tiny import IDS, small_config

from warmstart import EncoderDecoderConfig, EncoderDecoderModel
from warmstart.compatibility.tiny_configs import tiny_config


def test_buffers_filled_by_the_decoders_initialization_are_restored(tmp_path):
    decoder = tiny_config("falcon_h1")
    decoder.ssm_multipliers = [0.5, 0.6, 0.7, 0.8, 0.9]
    model = EncoderDecoderModel(EncoderDecoderConfig(encoder=small_config("bert"), decoder=decoder, **IDS))
    model.save_pretrained(tmp_path)
    again = dict(EncoderDecoderModel.from_pretrained(tmp_path).named_buffers())
    vectors = {name: value for name, value in model.named_buffers() if name.endswith("mup_vector")}
    assert len(vectors) == 2
    for name, value in vectors.items():
        assert len(value.unique()) > 1
        torch.testing.assert_close(again[name], value)


def test_loaded_values_are_not_initialized_again(tmp_path):
    model = EncoderDecoderModel(EncoderDecoderConfig(encoder=small_config("bert"), decoder=tiny_config("llama"), **IDS))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    model.save_pretrained(tmp_path)
    again = EncoderDecoderModel.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(again[name], value) for name, value in model.state_dict().items())
