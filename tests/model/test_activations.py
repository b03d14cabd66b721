"""What transformers writes out as a formula is one operation here: the same values, less kept for their gradient."""

import pytest
import torch
from tiny import OURS, UPSTREAM, decoder_half, half, source, target
from transformers.activations import ACT2FN

from warmstart.model.activations import WRITTEN_OUT, fuse_activations


def kept_elements(work):
    """Elements that autograd keeps for the backward pass of ``work``, each tensor once."""
    kept = {}

    def keep(tensor):
        kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = work()
    return sum(kept.values()), result


@pytest.mark.parametrize("name", ["gelu_new", "gelu_fast", "gelu_accurate"])
def test_the_function_and_its_gradient_are_the_same(name):
    half = torch.nn.ModuleDict({"inner": torch.nn.ModuleList([ACT2FN[name]])})
    written_out = half["inner"][0]
    fuse_activations(half)
    fused = half["inner"][0]
    assert fused is not written_out
    results = []
    for activation in (written_out, fused):
        x = torch.linspace(-9, 9, 1001, dtype=torch.float64, requires_grad=True)
        y = activation(x)
        y.sum().backward()
        results.append((y, x.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-8, rtol=0)  # gelu_fast rounds sqrt(2 / pi) to ten digits


@pytest.mark.parametrize("name", ["gelu", "relu", "quick_gelu", "silu", "gelu_10"])
def test_other_activations_are_left_alone(name):
    half = torch.nn.Sequential(ACT2FN[name])
    kept = half[0]
    fuse_activations(half)
    assert half[0] is kept


def test_a_pair_keeps_one_tensor_of_each_feed_forward_layer_and_computes_what_upstream_does():
    encoder, decoder = half("bert", hidden_act="gelu_fast"), decoder_half("gpt2")
    torch.manual_seed(0)
    ours, theirs = OURS.join(encoder, decoder), UPSTREAM.join(encoder, decoder)
    theirs.load_state_dict(ours.state_dict(), strict=False)
    assert not [module for module in ours.modules() if isinstance(module, WRITTEN_OUT)]
    assert ours.decoder.config.activation_function == "gelu_new"  # what is saved says what the checkpoint said
    batch = source() | {"labels": target()}
    (kept, mine), (more, other) = (kept_elements(lambda model=model: model(**batch)) for model in (ours, theirs))
    torch.testing.assert_close(mine.logits, other.logits, atol=2e-6, rtol=2e-5)
    rows, length = target().shape
    inner = ours.decoder.config.n_inner or 4 * ours.decoder.config.n_embd
    assert more - kept >= 3 * rows * length * inner * ours.decoder.config.n_layer
