"""Compiled layers compute what they computed, whatever the lengths, and generation leaves them alone."""

import pytest
import torch
from test_grafting import build
from tiny import OURS, decoder_half, gap, half, source, target
from torch._dynamo.utils import counters

from warmstart.model.compiling import compile_layers

SHAPES = [(3, 9, 6), (4, 12, 8), (2, 20, 5)]
PAIRS = {"native": lambda: OURS.join(half("bert"), decoder_half("gpt2")), "grafted": lambda: build("llama")}


def losses_and_gradients(model):
    found = []
    for rows, source_length, target_length in SHAPES:
        batch, labels = source(rows, source_length), target(rows, target_length)
        model.zero_grad()
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
    plain, written = losses_and_gradients(model), model.generate(**source(), num_beams=3, max_new_tokens=6)
    torch._dynamo.reset()
    counters.clear()
    layers = compile_layers(model)
    assert len(layers) == 4
    assert [name for name, _ in model.named_parameters()] == names
    compiled = losses_and_gradients(model)
    graphs = counters["stats"]["unique_graphs"]
    assert 0 < graphs <= len(layers) + 2  # a grafted layer is three: before, within and behind its hook
    assert gap(*(torch.stack([loss for loss, _ in found]) for found in (plain, compiled))) < 1e-3
    for (_, mine), (_, theirs) in zip(compiled, plain, strict=True):
        assert mine.keys() == theirs.keys()
        assert max(gap(mine[name], theirs[name]) for name in mine) < 1e-3
    assert torch.equal(model.generate(**source(), num_beams=3, max_new_tokens=6), written)
    losses_and_gradients(model)
    assert counters["stats"]["unique_graphs"] == graphs  # neither generation nor any length compiled again
