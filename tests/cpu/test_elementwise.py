"""The kernels for GELU and log probabilities are used during a search and not before or after it."""

import pytest
import torch
import torch.nn.functional as F
from tiny import OURS, gap, small_config, small_decoder_config, source
from torch import nn

from warmstart.cpu.elementwise import gelu_in_one_pass, log_probabilities
from warmstart.cpu.kernels import CpuKernels

pytestmark = pytest.mark.usefixtures("kernels")


def pair(kind="gpt2"):
    torch.manual_seed(0)
    return OURS.join(small_config("bert"), small_decoder_config(kind))


def gelus(decoder):
    return [module for module in decoder.modules() if type(module) is nn.GELU]


@pytest.fixture
def calls(monkeypatch):
    seen = []
    for name in ("gelu", "log_softmax"):
        original = getattr(CpuKernels, name)

        def counting(*args, name=name, original=original):
            seen.append(name)
            return original(*args)

        monkeypatch.setattr(CpuKernels, name, counting)
    return seen


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_search_uses_both_kernels_and_restores_the_model(kind, calls):
    model = pair(kind)
    layers = model.config.decoder.num_hidden_layers if kind == "gpt2" else 0  # BERT uses the exact GELU
    model.generate(**source(), num_beams=2, min_new_tokens=4, max_new_tokens=4)
    assert calls.count("gelu") == 4 * layers
    assert calls.count("log_softmax") == 4
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gelu_results_do_not_change(dtype, calls):
    decoder, given = pair().decoder, 3 * torch.randn(4, 3, 40).to(dtype)
    plain = [module(given) for module in gelus(decoder)]
    with torch.no_grad(), gelu_in_one_pass(decoder):
        found = [module(given) for module in gelus(decoder)]
    assert calls == ["gelu"] * len(plain)
    most = 2e-6 if dtype is torch.float32 else 0.04
    assert all(gap(one, two) <= most for one, two in zip(found, plain, strict=True))


def test_unsupported_tensors_use_torch(calls):
    decoder = pair().decoder
    module = gelus(decoder)[0]
    with gelu_in_one_pass(decoder):
        wanted = torch.randn(4, 40, requires_grad=True)
        module(wanted).sum().backward()
        assert wanted.grad.abs().sum() > 0
        with torch.no_grad():
            for given in (torch.randn(4, 40).double(), torch.randn(40, 4).t(), torch.randn(4, 40, device="meta")):
                assert module(given).dtype is given.dtype
    logits = torch.randn(3, 50).double()
    assert gap(log_probabilities(logits), F.log_softmax(logits, dim=-1)) < 1e-6
    assert log_probabilities(torch.randn(50, 3).t()).exp().sum(-1).allclose(torch.ones(3))
    assert log_probabilities(logits.to("meta")).shape == logits.shape
    assert calls == []
