"""The best scores and indices equal those of torch's topk, including ties and minus infinity."""

import pytest
import torch

from warmstart.cpu.topk import BLOCK, best_candidates

COUNT = 64 * BLOCK + 77


def same(scores, count):
    values, indices = best_candidates(scores, count)
    wanted, where = scores.topk(count)
    assert torch.equal(values, wanted)
    assert torch.equal(indices, where)
    return indices


@pytest.mark.parametrize("width", [10, BLOCK, COUNT, 64 * BLOCK, 100 * BLOCK + 1])
@pytest.mark.parametrize("count", [1, 8])
def test_scores_and_indices_equal_topk(width, count):
    for seed in range(5):
        same(torch.randn(3, width, generator=torch.Generator().manual_seed(seed)), count)


def test_best_scores_may_be_adjacent_or_at_the_end():
    scores = torch.randn(2, COUNT, generator=torch.Generator().manual_seed(0))
    scores[0, 40:48] = torch.arange(10.0, 18)
    scores[1, -8:] = torch.arange(10.0, 18)
    indices = same(scores, 8)
    assert indices[0].tolist() == list(range(47, 39, -1))
    assert indices[1].tolist() == list(range(COUNT - 1, COUNT - 9, -1))


def test_ties_are_ordered_as_topk():
    scores = torch.zeros(2, COUNT)
    scores[:, 5::100] = 1.0
    same(scores, 8)
    scores = torch.full((2, COUNT), float("-inf"))
    scores[:, 7], scores[:, 9000 % COUNT] = 1.0, 2.0
    same(scores, 8)


@pytest.mark.parametrize("seed", range(5))
def test_ties_in_any_order_have_equal_scores(seed):
    scores = torch.randn(3, COUNT, generator=torch.Generator().manual_seed(seed)).bfloat16().float()
    wanted = scores.topk(40)[0]
    assert (wanted[:, :-1] == wanted[:, 1:]).any()
    values, indices = best_candidates(scores, 40, ties_as_topk=False)
    assert torch.equal(values, wanted)
    assert torch.equal(scores.gather(1, indices), wanted)
    assert all(len(set(row)) == 40 for row in indices.tolist())


def test_nan_is_kept():
    scores = torch.randn(2, COUNT, generator=torch.Generator().manual_seed(0))
    scores[0, 70] = float("nan")
    assert best_candidates(scores, 4)[0].isnan().any()
