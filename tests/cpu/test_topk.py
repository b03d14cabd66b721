"""The best of many scores are those of torch's topk, ties and scores that are barred included."""

import pytest
import torch

from warmstart.cpu.topk import BLOCK, best_candidates

WIDTH = 64 * BLOCK + 77


def same(scores, count):
    values, places = best_candidates(scores, count)
    wanted, where = scores.topk(count)
    assert torch.equal(values, wanted)
    assert torch.equal(places, where)
    return places


@pytest.mark.parametrize("width", [10, BLOCK, WIDTH, 64 * BLOCK, 100 * BLOCK + 1])
@pytest.mark.parametrize("count", [1, 8])
def test_they_are_topk(width, count):
    for seed in range(5):
        same(torch.randn(3, width, generator=torch.Generator().manual_seed(seed)), count)


def test_the_best_may_lie_together_or_at_the_end():
    scores = torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(0))
    scores[0, 40:48] = torch.arange(10.0, 18)
    scores[1, -8:] = torch.arange(10.0, 18)
    places = same(scores, 8)
    assert places[0].tolist() == list(range(47, 39, -1))
    assert places[1].tolist() == list(range(WIDTH - 1, WIDTH - 9, -1))


def test_ties_are_torchs():
    scores = torch.zeros(2, WIDTH)
    scores[:, 5::100] = 1.0
    same(scores, 8)
    scores = torch.full((2, WIDTH), float("-inf"))
    scores[:, 7], scores[:, 9000 % WIDTH] = 1.0, 2.0
    same(scores, 8)


@pytest.mark.parametrize("seed", range(5))
def test_other_ties_are_as_good(seed):
    scores = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(seed)).bfloat16().float()
    wanted = scores.topk(40)[0]
    assert (wanted[:, :-1] == wanted[:, 1:]).any()
    values, places = best_candidates(scores, 40, ties_as_topk=False)
    assert torch.equal(values, wanted)
    assert torch.equal(scores.gather(1, places), wanted)
    assert all(len(set(row)) == 40 for row in places.tolist())


def test_what_is_no_number_is_not_lost():
    scores = torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(0))
    scores[0, 70] = float("nan")
    assert best_candidates(scores, 4)[0].isnan().any()
