"""Compiled layers compute what they computed, whatever the lengths, and generation leaves them alone."""

import pytest
import torch
from test_grafting import build
from tiny import OURS, decoder_half, gap, half, source, target
from torch._dynamo.utils import counters

from warmstart.cpu.attention import use_lean_dropout
from warmstart.model.compiling import compile_layers

SHAPES = [(3, 9, 6), (4, 12, 8), (2, 20, 5)]


def with_dropout():
    """Of attention alone: hidden states in a compiled graph draw otherwise."""
    encoder = half("bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.2)
    decoder = decoder_half("gpt2", resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.2)
    model = OURS.join(encoder, decoder).train()
    assert use_lean_dropout(model.encoder)
    assert use_lean_dropout(model.decoder)
    return model


PAIRS = {
    "native": lambda: OURS.join(half("bert"), decoder_half("gpt2")).eval(),
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
def test_losses_and_gradients_stay_and_no_length_compiles_anew(kind):
    torch.manual_seed(0)
    model = PAIRS[kind]()
    names = [name for name, _ in model.named_parameters()]
    plain = losses_and_gradients(model)
    torch.manual_seed(7)
    written = model.generate(**source(), num_beams=3, max_new_tokens=6)
    torch._dynamo.reset()
    counters.clear()
    layers = compile_layers(model)
    assert len(layers) == 4
    assert [name for name, _ in model.named_parameters()] == names
    compiled = losses_and_gradients(model)
    graphs = counters["stats"]["unique_graphs"]
    # A grafted layer is three: before, within and behind its hook. Attention that draws is left out of every layer.
    assert 0 < graphs <= (12 if kind == "dropout" else len(layers) + 2)
    assert gap(*(torch.stack([loss for loss, _ in found]) for found in (plain, compiled))) < 1e-3
    for (_, mine), (_, theirs) in zip(compiled, plain, strict=True):
        assert mine.keys() == theirs.keys()
        assert max(gap(mine[name], theirs[name]) for name in mine) < 1e-3
    torch.manual_seed(7)
    assert torch.equal(model.generate(**source(), num_beams=3, max_new_tokens=6), written)
    losses_and_gradients(model)
    assert counters["stats"]["unique_graphs"] == graphs  # neither generation nor any length compiled again
