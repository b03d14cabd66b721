"""Compiled layers give equal results for all lengths, and generation does not use them."""

import pytest
import torch
from test_grafting import build
from tiny import OURS, gap, small_config, small_decoder_config, source, target
from torch._dynamo.utils import counters

from warmstart.cpu.attention import use_lean_dropout
from warmstart.model.compiling import compile_layers

SHAPES = [(3, 9, 6), (4, 12, 8), (2, 20, 5)]


def with_dropout():
    """Build a model with dropout only in attention: other dropout draws other masks in a compiled graph."""
    encoder = small_config("bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.2)
    decoder = small_decoder_config("gpt2", resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.2)
    model = OURS.join(encoder, decoder).train()
    assert use_lean_dropout(model.encoder)
    assert use_lean_dropout(model.decoder)
    return model


PAIRS = {
    "native": lambda: OURS.join(small_config("bert"), small_decoder_config("gpt2")).eval(),
    "grafted": lambda: build("llama"),
    "dropout": with_dropout,
}


def losses_and_gradients(model):
    found = []
    for rows, source_length, target_length in SHAPES:
        batch, labels = source(rows, source_length), target(rows, target_length)
        model.zero_grad()
        torch.manual_seed(7)
        loss, _, _ = model.training_loss(batch["input_ids"], batch["attention_mask"], labels)
        loss.backward()
        found.append((loss.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", PAIRS)
def test_compiled_layers_give_equal_gradients_without_recompilation(kind):
    torch.manual_seed(0)
    model = PAIRS[kind]()
    names = [name for name, _ in model.named_parameters()]
    plain = losses_and_gradients(model)
    torch.manual_seed(7)
    expected = model.generate(**source(), num_beams=3, max_new_tokens=6)
    torch._dynamo.reset()
    counters.clear()
    layers = compile_layers(model)
    assert len(layers) == 4
    assert [name for name, _ in model.named_parameters()] == names
    compiled = losses_and_gradients(model)
    graphs = counters["stats"]["unique_graphs"]
    # A grafted layer has three graphs: before, in and after its hook. Attention with dropout breaks the graph.
    assert 0 < graphs <= (12 if kind == "dropout" else len(layers) + 2)
    assert gap(*(torch.stack([loss for loss, _ in found]) for found in (plain, compiled))) < 1e-3
    for (_, mine), (_, theirs) in zip(compiled, plain, strict=True):
        assert mine.keys() == theirs.keys()
        assert max(gap(mine[name], theirs[name]) for name in mine) < 1e-3
    torch.manual_seed(7)
    assert torch.equal(model.generate(**source(), num_beams=3, max_new_tokens=6), expected)
    losses_and_gradients(model)
    assert counters["stats"]["unique_graphs"] == graphs  # neither generation nor any length compiled again
