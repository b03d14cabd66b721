"""The summed loss equals torch's cross-entropy, and stores only one tensor of size labels x vocabulary."""

import pytest
import torch
import torch.nn.functional as F

from warmstart.model.loss import chunk_loss, cross_entropy

ROWS, VOCABULARY = 7, 41
SCALE = 2.0**-12  # the loss is scaled before the backward pass, as in a training step


def logits_and_labels(dtype):
    torch.manual_seed(0)
    logits = (4 * torch.randn(ROWS, VOCABULARY, dtype=torch.float64)).to(dtype).requires_grad_()
    return logits, torch.randint(VOCABULARY, (ROWS,))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_loss_and_gradient_equal_torch_cross_entropy(dtype, smoothing):
    logits, labels = logits_and_labels(dtype)
    loss, nll = chunk_loss(logits, labels, smoothing)
    (loss * SCALE).backward()
    wide = logits.detach().double().requires_grad_()
    expected = F.cross_entropy(wide, labels, reduction="sum", label_smoothing=smoothing)
    (expected * SCALE).backward()
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    tolerance = {"rtol": 1e-12 if dtype == torch.float64 else 1e-6, "atol": 0}
    torch.testing.assert_close(loss.detach().double(), expected.detach(), **tolerance)
    torch.testing.assert_close(
        nll.double(), F.cross_entropy(wide, labels, reduction="none"), rtol=1e-6, atol=1e-6, check_dtype=False
    )
    assert logits.grad.dtype == dtype
    torch.testing.assert_close(logits.grad, wide.grad.to(dtype), rtol=2**-7, atol=1e-7)


def test_small_float16_gradients_survive_with_a_loss_scale():
    logits = torch.tensor([[0.0, -18.0]], dtype=torch.float16, requires_grad=True)  # second probability: 1.5e-8
    loss, _ = chunk_loss(logits, torch.tensor([0]), 0.0)
    (loss * 2.0**16).backward()
    torch.testing.assert_close(logits.grad[0, 1].item(), 2.0**16 * torch.tensor(-18.0).exp().item(), rtol=1e-2, atol=0)


def test_only_the_gradient_is_stored_in_the_dtype_of_the_logits():
    logits, labels = logits_and_labels(torch.bfloat16)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append((x.shape, x.dtype)) or x, lambda x: x):
        chunk_loss(logits, labels, 0.1)
    assert [found for found in kept if found[0].numel() >= ROWS * VOCABULARY] == [(logits.shape, torch.bfloat16)]


def test_no_gradient_is_computed_without_backward():
    logits, labels = logits_and_labels(torch.float32)
    with torch.no_grad():
        loss, nll = chunk_loss(logits, labels, 0.0)
    assert not loss.requires_grad
    torch.testing.assert_close(nll, F.cross_entropy(logits.detach(), labels, reduction="none"))
    assert not chunk_loss(logits, labels, 0.0)[1].requires_grad


@pytest.mark.parametrize("items", [None, 20, torch.tensor(20)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_positions_without_a_label_do_not_count_in_cross_entropy(dtype, items):
    logits, labels = logits_and_labels(dtype)
    labels[[1, 4]] = -100
    loss = cross_entropy(logits[None], labels[None], items)
    loss.backward()
    wide = logits.detach().double().requires_grad_()
    expected = F.cross_entropy(wide, labels, reduction="sum") / (ROWS - 2 if items is None else items)
    expected.backward()
    torch.testing.assert_close(loss.detach().double(), expected.detach(), rtol=1e-6, atol=0)
    torch.testing.assert_close(logits.grad, wide.grad.to(dtype), rtol=2**-7, atol=1e-7)
    assert not logits.grad[[1, 4]].any()


def test_cross_entropy_stores_only_the_gradient_in_the_dtype_of_the_logits():
    logits, labels = logits_and_labels(torch.bfloat16)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append((x.shape, x.dtype)) or x, lambda x: x):
        cross_entropy(logits[None], labels[None])
    assert [found for found in kept if found[0].numel() >= ROWS * VOCABULARY] == [(logits.shape, torch.bfloat16)]
