"""Graphs of torch.export and torch.jit.trace are correct for other inputs, with native and grafted cross-attention."""

import pytest
import torch
from tiny import IDS, small_config, small_decoder_config, source, target

from warmstart import EncoderDecoderConfig, EncoderDecoderModel


@pytest.fixture(params=["bert", "gpt2", "llama"])
def model(request):
    torch.manual_seed(0)
    decoder = small_decoder_config(request.param, **({"num_key_value_heads": 2} if request.param == "llama" else {}))
    model = EncoderDecoderModel(
        EncoderDecoderConfig.from_encoder_decoder_configs(small_config("bert"), decoder, **IDS)
    ).eval()
    if model.config.graft is not None:
        for layer in model.cross_attention.values():
            torch.nn.init.constant_(layer.gate, 0.7)
    return model


def left_padded(rows, length):
    mask = torch.ones(rows, length, dtype=torch.long)
    mask[0, :3] = 0
    return {"input_ids": source(rows, length)["input_ids"].masked_fill(mask == 0, 1), "attention_mask": mask}


def inputs(sources, length=6):
    return {**sources, "decoder_input_ids": target(len(sources["input_ids"]), length).clamp(min=5), "use_cache": False}


@pytest.mark.parametrize("strict", [False, True])
def test_exported_graph_handles_other_padding(model, strict):
    exported = torch.export.export(model, (), inputs(source()), strict=strict).module()
    for sources in (source(), source(seed=5), left_padded(3, 9)):
        given = inputs(sources)
        torch.testing.assert_close(exported(**given).logits, model(**given).logits)


def test_exported_graph_handles_other_sizes(model):
    rows, source_length, length = (torch.export.Dim(name, max=32) for name in ("rows", "source_length", "length"))
    shapes = {name: {0: rows, 1: source_length} for name in ("input_ids", "attention_mask")}
    shapes |= {"decoder_input_ids": {0: rows, 1: length}, "use_cache": None}
    exported = torch.export.export(model, (), inputs(source()), dynamic_shapes=shapes).module()
    for given in (inputs(source(2, 7), 4), inputs(left_padded(4, 11), 8)):
        torch.testing.assert_close(exported(**given).logits, model(**given).logits, rtol=1e-4, atol=1e-4)


def test_traced_graph_handles_other_padding_and_sizes(model):
    class Logits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask, decoder_input_ids):
            return self.model(input_ids, attention_mask, decoder_input_ids, use_cache=False, return_dict=False)[0]

    names = ("input_ids", "attention_mask", "decoder_input_ids")
    first = inputs(source())
    traced = torch.jit.trace(Logits(), tuple(first[name] for name in names), check_trace=False, strict=False)
    for given in (inputs(source(2, 7), 4), inputs(left_padded(3, 9))):
        found = traced(*(given[name] for name in names))
        torch.testing.assert_close(found, model(**given).logits, rtol=1e-4, atol=1e-4)
