"""FLOPs counted from matrices and lengths, against what torch's counter sees in a real forward and backward pass."""

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AlbertConfig,
    BertConfig,
    DistilBertConfig,
    GPT2Config,
    LlamaConfig,
    LongformerConfig,
    OPTConfig,
)

from warmstart import DecoderOnlyModel, EncoderDecoderConfig, EncoderDecoderModel
from warmstart.model.decoder_only import DecoderOnlyConfig
from warmstart.profiling.flops import count_flops, lengths_seen, training_flops

ROWS, SOURCE, TARGET = 3, 11, 7
IDS = {"decoder_start_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SMALL = {"vocab_size": 50, "num_hidden_layers": 3, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 40}
BERT = BertConfig(**SMALL)
WIDER = BertConfig(**SMALL | {"hidden_size": 24})
ALBERT = AlbertConfig(**SMALL, embedding_size=8, num_hidden_groups=1)
DISTILBERT = DistilBertConfig(vocab_size=50, n_layers=3, n_heads=2, dim=16, hidden_dim=40)
GPT2 = GPT2Config(vocab_size=50, n_layer=3, n_head=2, n_embd=16)
LLAMA = LlamaConfig(**SMALL, num_key_value_heads=1, head_dim=12)
OPT = OPTConfig(vocab_size=50, num_hidden_layers=4, num_attention_heads=2, hidden_size=16, ffn_dim=40)


def pair(encoder, decoder, **graft):
    torch.manual_seed(0)
    if "every_n_layers" in graft:
        return EncoderDecoderModel(EncoderDecoderConfig(encoder=encoder, decoder=decoder, graft=graft, **IDS)).train()
    return EncoderDecoderModel(EncoderDecoderConfig(encoder=encoder, decoder=decoder, **IDS)).train()


def batch(rows=ROWS):
    source, labels = torch.randint(3, 50, (rows, SOURCE)), torch.randint(3, 50, (rows, TARGET))
    return {"input_ids": source, "attention_mask": torch.ones_like(source), "labels": labels}


def counted_by_torch(model):
    """With attention as plain products: a fused kernel's backward pass computes its scores again."""
    model.encoder.set_attn_implementation("eager")
    model.decoder.set_attn_implementation("eager")
    one = batch()
    model.training_loss(**one)  # tries the head on one token, once
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.training_loss(**one)[0].backward()
    return counter.get_total_flops()


@pytest.mark.parametrize(
    ("encoder", "decoder", "graft"),
    [
        (BERT, BERT, {}),
        (BERT, GPT2, {}),
        (WIDER, GPT2, {}),
        (ALBERT, BERT, {}),
        (DISTILBERT, BERT, {}),
        (BERT, LLAMA, {"every_n_layers": 1}),
        (WIDER, LLAMA, {"every_n_layers": 2}),
        (BERT, OPT, {"every_n_layers": 1}),
    ],
)
def test_the_count_matches_a_real_step(encoder, decoder, graft):
    model = pair(encoder, decoder, **graft)
    assert ROWS * training_flops(model, SOURCE, TARGET) == counted_by_torch(model)


@pytest.mark.parametrize("decoder", [GPT2, LLAMA])
def test_without_an_encoder_the_decoder_processes_the_source(decoder):
    torch.manual_seed(0)
    model = DecoderOnlyModel(DecoderOnlyConfig(decoder=decoder, **IDS)).train()
    assert ROWS * training_flops(model, SOURCE, TARGET) == counted_by_torch(model)


@pytest.mark.parametrize("decoder", [GPT2, LLAMA, OPT])
@pytest.mark.parametrize("frozen", ["encoder", "decoder", "both"])
def test_frozen_parameters_cost_less(frozen, decoder):
    graft = {} if decoder is GPT2 else {"every_n_layers": 2}
    model = pair(BERT, decoder, **graft)
    whole = training_flops(model, SOURCE, TARGET)
    for submodel in ("encoder", "decoder"):
        if frozen in (submodel, "both"):
            getattr(model, f"freeze_{submodel}")()
    found = training_flops(model, SOURCE, TARGET)
    assert found < 0.9 * whole
    # GPT-2's first query of the source needs no gradient of its input, which the order of its modules does not tell.
    assert ROWS * found == pytest.approx(counted_by_torch(model), rel=0.006 if decoder is GPT2 else 1e-12)


def test_gradient_checkpointing_counts_once():
    model = pair(BERT, GPT2)
    before, once = training_flops(model, SOURCE, TARGET), counted_by_torch(model)
    model.activation_checkpointing_enable()
    assert training_flops(model, SOURCE, TARGET) == before
    assert counted_by_torch(model) > 1.2 * once


def test_a_batch_is_the_sum_of_its_examples_without_padding():
    count = count_flops(pair(BERT, GPT2))
    one, rows = batch(4), [(11, 7), (5, 7), (1, 2), (9, 1)]
    for i, (source, target) in enumerate(rows):
        one["attention_mask"][i, source:] = 0
        one["labels"][i, target:] = -100
    expected = sum(count.of(source, target) for source, target in rows)
    seen = lengths_seen(one, count.window)
    assert count.total(seen) == pytest.approx(expected, rel=1e-12)
    assert seen[:2].tolist() == [26, 17]
    lengths = np.array(rows).T
    assert count.of(*lengths).sum() == pytest.approx(expected, rel=1e-12)


def test_a_window_limits_the_keys_of_a_query():
    sizes = {"num_hidden_layers": 2, "attention_window": [4, 4]}
    count = count_flops(pair(LongformerConfig(**SMALL | sizes), GPT2))
    assert count.window == 4
    assert count.of(100, 0) - count.source * 100 == count.source_pairs * 100 * 4
    one = batch(2)
    assert count.total(lengths_seen(one, count.window)) == pytest.approx(2 * count.of(SOURCE, TARGET))
