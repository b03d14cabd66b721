"""Fused activations give the values of transformers' unfused ones, and autograd stores less for them."""

import pytest
import torch
from tiny import OURS, UPSTREAM, small_config, small_decoder_config, source, target
from transformers.activations import ACT2FN

from warmstart.model.activations import UNFUSED, fuse_activations


def kept_elements(work):
    """Count the elements that autograd stores for the backward pass of ``work``, each tensor once."""
    kept = {}

    def keep(tensor):
        kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = work()
    return sum(kept.values()), result


@pytest.mark.parametrize("name", ["gelu_new", "gelu_fast", "gelu_accurate"])
def test_fused_activation_and_gradient_equal_the_original(name):
    submodel = torch.nn.ModuleDict({"inner": torch.nn.ModuleList([ACT2FN[name]])})
    original = submodel["inner"][0]
    fuse_activations(submodel)
    fused = submodel["inner"][0]
    assert fused is not original
    results = []
    for activation in (original, fused):
        x = torch.linspace(-9, 9, 1001, dtype=torch.float64, requires_grad=True)
        y = activation(x)
        y.sum().backward()
        results.append((y, x.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-8, rtol=0)  # gelu_fast rounds sqrt(2 / pi) to ten digits


@pytest.mark.parametrize("name", ["gelu", "relu", "quick_gelu", "silu", "gelu_10"])
def test_other_activations_are_not_replaced(name):
    submodel = torch.nn.Sequential(ACT2FN[name])
    kept = submodel[0]
    fuse_activations(submodel)
    assert submodel[0] is kept


def test_fused_model_stores_less_and_computes_upstream_logits():
    encoder, decoder = small_config("bert", hidden_act="gelu_fast"), small_decoder_config("gpt2")
    torch.manual_seed(0)
    ours, theirs = OURS.join(encoder, decoder), UPSTREAM.join(encoder, decoder)
    theirs.load_state_dict(ours.state_dict(), strict=False)
    assert not [module for module in ours.modules() if isinstance(module, UNFUSED)]
    assert ours.decoder.config.activation_function == "gelu_new"  # the config does not change
    batch = source() | {"labels": target()}
    (kept, mine), (more, other) = (kept_elements(lambda model=model: model(**batch)) for model in (ours, theirs))
    torch.testing.assert_close(mine.logits, other.logits, atol=2e-6, rtol=2e-5)
    rows, length = target().shape
    inner = ours.decoder.config.n_inner or 4 * ours.decoder.config.n_embd
    assert more - kept >= 3 * rows * length * inner * ours.decoder.config.n_layer
