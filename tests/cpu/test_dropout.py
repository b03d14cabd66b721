"""Dropout on a CPU: requested share, independent elements, one mask for both passes, and no stored mask."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from warmstart.cpu.dropout import LeanDropout, dropped_share, exchange_dropout, keep_, kept_bits

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def generator(seed=3):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("dropout", [0.02, 0.1, 0.5, 0.9])
def test_dropped_share_is_the_requested_one(dropout):
    count = 2**21 + 3
    assert abs(dropped_share(dropout) - dropout) <= 2**-17
    kept = kept_bits(count, dropped_share(dropout), generator(), torch.bfloat16)
    assert kept.shape == (count,)
    assert set(kept.unique().tolist()) == {-1, 0}
    drop = kept == 0
    assert abs(drop.double().mean() - dropout) < 5 * (dropout * (1 - dropout) / count) ** 0.5
    # Adjacent elements are independent, although four of them come from one random number.
    both = (drop[:-1] & drop[1:]).double().mean()
    assert abs(both - dropout**2) < 6 * (dropout**2 / count) ** 0.5


def test_masks_do_not_depend_on_the_number_of_threads():
    count, before, masks = 4 * (2**19 + 5), torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        masks.append(kept_bits(count, 0.5, generator(), torch.bfloat16))
    torch.set_num_threads(before)
    assert torch.equal(masks[0], masks[1])
    assert torch.equal(masks[0], masks[2])
    one, two = masks[0][: 4 * 2**18], masks[0][4 * 2**18 : 4 * 2**19]
    assert abs((one == two).double().mean() - 0.5) < 0.01


@pytest.mark.parametrize("dtype", DTYPES)
def test_seed_drops_the_same_elements_in_every_dtype(dtype):
    masks = [kept_bits(1001, 0.25, generator(), each) for each in (torch.float16, dtype)]
    assert masks[1].itemsize == dtype.itemsize
    assert torch.equal(masks[0] != 0, masks[1] != 0)
    values = torch.randn(1001).to(dtype)
    expected = values * (masks[1] != 0)
    assert torch.equal(keep_(values, masks[1]), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_forward_and_backward_use_the_same_mask(dtype):
    values = torch.rand(64, 50).add_(1).to(dtype).requires_grad_()
    torch.manual_seed(1)
    dropped = LeanDropout(0.25)(values)
    dropped.sum().backward()
    went = dropped != 0
    assert 0.1 < 1 - went.double().mean() < 0.4
    assert torch.equal(values.grad, went.to(dtype) * torch.tensor(1 / 0.75, dtype=torch.float64).to(dtype))
    torch.testing.assert_close(dropped.detach(), values.detach() * went / 0.75)


def test_noncontiguous_input_gets_the_same_mask():
    values = torch.rand(6, 5, dtype=torch.float64)
    results = []
    for given in (values, values.t().contiguous().t()):
        torch.manual_seed(1)
        results.append(LeanDropout(0.5)(given))
    assert torch.equal(*results)


def test_no_mask_is_stored_and_checkpointing_draws_it_again():
    values = torch.rand(30, 8, dtype=torch.float64, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.shape) or x, lambda x: x):
        LeanDropout(0.5)(values)
    assert not kept
    layer = nn.Sequential(nn.Linear(8, 8), LeanDropout(0.5), nn.Linear(8, 8)).double()
    grads = []
    for run in (layer, lambda x: checkpoint(layer, x, use_reentrant=False)):
        torch.manual_seed(2)
        grads.append(torch.autograd.grad(run(values).square().sum(), values)[0])
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("values", [torch.ones(4, 3), torch.ones(4, 3, dtype=torch.float64)])
def test_input_is_unchanged_in_evaluation_mode_or_without_dropout(values):
    assert torch.equal(LeanDropout(0.5).eval()(values), values)
    assert torch.equal(LeanDropout(0.0)(values), values)
    assert not LeanDropout(1.0)(values).any()


def test_every_plain_dropout_is_replaced_and_no_other():
    class Own(nn.Dropout):
        pass

    submodel = nn.Sequential(nn.Dropout(0.3), nn.Sequential(nn.Dropout(0.2), Own(0.1)), nn.Linear(2, 2)).eval()
    exchange_dropout(submodel)
    assert [type(module) for module in submodel.modules() if isinstance(module, nn.Dropout)] == [
        LeanDropout,
        LeanDropout,
        Own,
    ]
    assert [submodel[0].p, submodel[1][0].p, submodel[0].training] == [0.3, 0.2, False]
