"""Properties of target-length buckets, for any lengths, and of the batches that have them."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from warmstart.data.batching import TokenBudgetBatchSampler, padded_tokens
from warmstart.data.collate import Collator
from warmstart.data.target_buckets import MIN_SAVING, target_buckets

rows_of_lengths = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 20)), min_size=1, max_size=30)
shares = st.sampled_from([0, MIN_SAVING, 1 / 16, 1 / 4, 1])


def decoded(buckets):
    return sum(size * longest for size, longest in buckets)


@given(rows_of_lengths, shares)
@settings(deadline=None, max_examples=300)
def test_buckets_hold_every_example_once_and_save_the_minimum(lengths, min_saving):
    longest = max(source for source, _ in lengths)
    targets = [target for _, target in lengths]
    buckets, ordered = target_buckets(longest, targets, min_saving), sorted(targets)
    held = []
    for size, widest in buckets:
        assert size > 0
        held.append(ordered[sum(map(len, held)) :][:size])
        assert max(held[-1]) == widest
    assert [length for bucket in held for length in bucket] == ordered
    whole = len(lengths) * max(targets)
    least = min(i * ordered[i - 1] + (len(ordered) - i) * ordered[-1] for i in range(1, len(ordered) + 1))
    worthwhile = whole - least >= min_saving * (len(lengths) * longest + whole) and least < whole
    assert len(buckets) == 1 + worthwhile
    assert decoded(buckets) == (least if worthwhile else whole)


@given(rows_of_lengths)
@settings(deadline=None, max_examples=200)
def test_the_collator_sorts_by_target_length_and_agrees_with_padded_tokens(lengths):
    rows = [(i, np.arange(source), np.arange(target)) for i, (source, target) in enumerate(lengths)]
    plain, batch = Collator(0)(rows), Collator(0, bucket_targets=True)(rows)
    assert "buckets" not in plain
    assert plain["index"].tolist() == list(range(len(rows)))
    order = batch["index"].tolist()
    assert order == sorted(range(len(rows)), key=lambda i: lengths[i][1])  # equal lengths stay in the plan's order
    for name in ("input_ids", "attention_mask", "labels"):
        assert batch[name].tolist() == plain[name][order].tolist()
    first = 0
    for count, longest in batch["buckets"]:
        labels = batch["labels"][first : first + count]
        assert (labels[:, longest:] == -100).all()
        assert (labels[:, longest - 1] != -100).any()
        first += count
    assert first == len(rows)
    counted = padded_tokens([list(range(len(rows)))], *map(list, zip(*lengths, strict=True)))
    assert counted == batch["input_ids"].numel() + decoded(batch["buckets"])


def test_buckets_save_half_of_the_padding_if_target_lengths_do_not_follow_source_lengths():
    rng = np.random.default_rng(0)
    source, target = rng.integers(5, 400, 2000).tolist(), rng.integers(5, 60, 2000).tolist()
    sampler = TokenBudgetBatchSampler(source, target, max_tokens=4000)
    whole = 1 - (sum(source) + sum(target)) / padded_tokens(sampler.plan(0), source, target, min_saving=1)
    assert sampler.padding_fraction() < 0.6 * whole
