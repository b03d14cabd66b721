"""Properties of the plan of batches, for any lengths, budget, ranks and epoch."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warmstart.data.batching import TokenBudgetBatchSampler, evaluation_batches

pairs_of_lengths = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 20)), min_size=1, max_size=150)
ranks = st.integers(1, 5)


@st.composite
def samplers(draw):
    """A function that returns the sampler of a rank, and the lengths."""
    lengths = draw(pairs_of_lengths)
    world_size = draw(ranks)
    max_tokens = draw(st.none() | st.integers(20, 600))
    size = draw(st.integers(1, 20) if max_tokens is None else st.none() | st.integers(1, 20))
    options = {
        "max_tokens": max_tokens,
        "size": size,
        "bucket": draw(st.integers(1, 4)),
        "seed": draw(st.integers(0, 9)),
    }

    def of_rank(rank):
        return TokenBudgetBatchSampler(*zip(*lengths, strict=True), rank=rank, world_size=world_size, **options)

    return of_rank, lengths, world_size, max_tokens, size


def tokens(batch, lengths):
    return len(batch) * (max(lengths[i][0] for i in batch) + max(lengths[i][1] for i in batch))


@given(samplers(), st.integers(0, 40))
@settings(deadline=None, max_examples=300)
def test_every_rank_has_the_same_number_of_batches_and_every_example_once(drawn, epoch):
    of_rank, lengths, world_size, max_tokens, size = drawn
    slices = []
    for rank in range(world_size):
        sampler = of_rank(rank)
        sampler.set_epoch(epoch)
        slices.append(list(sampler))
        # Every rank has the same number of batches in every epoch, and knows it in advance.
        assert len(slices[-1]) == len(sampler) == len(of_rank(0))
    batches = [batch for some in slices for batch in some]
    for batch in batches:
        assert batch
        if max_tokens is not None:
            assert tokens(batch, lengths) <= max_tokens or len(batch) == 1
        if size is not None:
            assert len(batch) <= size
    seen = Counter(i for batch in batches for i in batch)
    assert set(seen) == set(range(len(lengths)))
    # Examples are repeated only if no batch can be halved to keep the ranks equal.
    if max(seen.values()) > 1:
        assert max(map(len, batches)) == 1
        assert sum(seen.values()) - len(lengths) < world_size


@given(samplers())
@settings(deadline=None, max_examples=50)
def test_the_plan_depends_only_on_seed_and_epoch(drawn):
    of_rank, _, world_size, _, _ = drawn
    first, last = of_rank(0), of_rank(world_size - 1)
    assert first.plan(3) == last.plan(3)
    last.set_epoch(2)
    list(last)
    assert first.plan(3) == last.plan(3)


def sampler(n=400, **kwargs):
    rng = np.random.default_rng(0)
    options = {"max_tokens": 800, "bucket": 8, "seed": 1} | kwargs
    return TokenBudgetBatchSampler(rng.integers(5, 100, n), rng.integers(2, 20, n), **options)


def test_epochs_and_seeds_differ():
    assert sampler().plan(0) != sampler().plan(1)
    assert sampler().plan(0) != sampler(seed=2).plan(0)


def test_sorting_by_length_reduces_padding_and_larger_buckets_reduce_it_more():
    sorted_by_length = [sampler(4000, bucket=bucket).padding_fraction() for bucket in (1, 10, 100)]
    assert sorted_by_length[0] > sorted_by_length[1] > sorted_by_length[2]
    assert sorted_by_length[2] < 0.12 < 0.25 < sorted_by_length[0]


def test_padding_fraction_counts_source_and_target():
    one = TokenBudgetBatchSampler([10, 6], [4, 4], max_tokens=None, size=2)
    assert one.padding_fraction() == pytest.approx(1 - 24 / 28)


def test_plain_size_gives_full_batches():
    sizes = Counter(map(len, sampler(n=100, max_tokens=None, size=16).plan(0)))
    assert sizes == {16: 6, 4: 1}


def test_an_example_over_the_budget_is_a_batch_of_its_own():
    plan = TokenBudgetBatchSampler([5, 500, 5], [2, 2, 2], max_tokens=50).plan(0)
    assert sorted(map(sorted, plan)) == [[0, 2], [1]]


def test_batches_are_not_ordered_by_length():
    source = sampler(2000).source
    longest = [max(source[i] for i in batch) for batch in sampler(2000).plan(0)]
    assert abs(np.corrcoef(longest, range(len(longest)))[0, 1]) < 0.3


def test_a_sampler_needs_a_budget_or_a_size():
    with pytest.raises(ValueError, match="budget or a size"):
        TokenBudgetBatchSampler([1], [1], max_tokens=None)


@given(samplers(), st.integers(0, 5), st.integers(0, 100))
@settings(deadline=None, max_examples=100)
def test_resuming_gives_the_rest_of_the_epoch(drawn, epoch, consumed):
    of_rank, _, world_size, _, _ = drawn
    rank = world_size - 1
    whole = of_rank(rank)
    whole.set_epoch(epoch)
    batches = list(whole)
    consumed = min(consumed, len(batches))
    resumed = of_rank(rank)
    resumed.load_state_dict(whole.state_dict(consumed))
    assert len(resumed) == len(whole)
    if consumed < len(batches):
        resumed.set_epoch(epoch)  # as Lightning does after loading
        assert list(resumed) == batches[consumed:]
    resumed.set_epoch(epoch + 1)
    whole.set_epoch(epoch + 1)
    assert list(resumed) == list(whole)


def test_the_state_of_changed_data_restarts_the_epoch(caplog):
    state = sampler().state_dict(5)
    other = sampler(n=401)
    other.load_state_dict(state | {"epoch": 2})
    assert (other.epoch, other.position) == (2, 0)
    assert "starts from its first batch" in caplog.text


def test_lightning_finds_set_epoch():
    from lightning.fabric.utilities.data import _set_sampler_epoch
    from torch.utils.data import DataLoader

    batches = sampler()
    _set_sampler_epoch(DataLoader(list(range(400)), batch_sampler=batches), 7)
    assert batches.epoch == 7


@given(pairs_of_lengths, st.integers(20, 600), ranks)
@settings(deadline=None, max_examples=200)
def test_evaluation_batches(lengths, max_tokens, world_size):
    source, target = map(list, zip(*lengths, strict=True))
    slices = [evaluation_batches(source, target, max_tokens, rank=r, world_size=world_size) for r in range(world_size)]
    batches = [batch for some in slices for batch in some]
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(tokens(batch, lengths) <= max_tokens or len(batch) == 1 for batch in batches)
    if len(lengths) >= world_size and max(map(len, batches)) > 1:
        assert len({len(some) for some in slices}) == 1
    longest = [max(source[i] for i in batch) for batch in slices[0]]
    assert longest == sorted(longest, reverse=True)


@pytest.mark.parametrize(("before", "after"), [(1, 2), (4, 2), (2, 4)])
def test_a_state_of_another_number_of_ranks_skips_no_batch(before, after):
    options = {"max_tokens": None, "size": 10}
    plan = sampler(**options).plan(0)
    assert {sampler(**options, world_size=ranks).count for ranks in (before, after)} == {len(plan)}
    state = sampler(**options, world_size=before).state_dict(5)
    left = []
    for rank in range(after):
        resumed = sampler(**options, rank=rank, world_size=after)
        resumed.load_state_dict(state)
        left.append(list(resumed))
    assert len({len(batches) for batches in left}) == 1
    again = sum(map(len, left)) - (len(plan) - 5 * before)
    assert 0 <= again < after
    assert sorted(batch for batches in left for batch in batches) == sorted(plan[5 * before - again :])
