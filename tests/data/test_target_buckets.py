"""Properties of the cut of a batch, for any lengths, and of the batches that carry it."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from warmstart.data.batching import TokenBudgetBatchSampler, padded_tokens
from warmstart.data.collate import Collator
from warmstart.data.target_buckets import WORTH, parts_of

rows_of_lengths = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 20)), min_size=1, max_size=30)
shares = st.sampled_from([0, WORTH, 1 / 16, 1 / 4, 1])


def decoded(parts):
    return sum(rows * longest for rows, longest in parts)


@given(rows_of_lengths, shares)
@settings(deadline=None, max_examples=300)
def test_parts_hold_every_row_once_and_save_what_a_cut_has_to(lengths, worth):
    longest = max(source for source, _ in lengths)
    targets = [target for _, target in lengths]
    parts, ordered = parts_of(longest, targets, worth), sorted(targets)
    held = []
    for rows, widest in parts:
        assert rows > 0
        held.append(ordered[sum(map(len, held)) :][:rows])
        assert max(held[-1]) == widest
    assert [length for part in held for length in part] == ordered
    whole = len(lengths) * max(targets)
    least = min(i * ordered[i - 1] + (len(ordered) - i) * ordered[-1] for i in range(1, len(ordered) + 1))
    worthwhile = whole - least >= worth * (len(lengths) * longest + whole) and least < whole
    assert len(parts) == 1 + worthwhile
    assert decoded(parts) == (least if worthwhile else whole)


@given(rows_of_lengths)
@settings(deadline=None, max_examples=200)
def test_the_collator_sorts_rows_by_label_length_and_cuts_where_the_plan_counts(lengths):
    rows = [(i, np.arange(source), np.arange(target)) for i, (source, target) in enumerate(lengths)]
    plain, batch = Collator(0)(rows), Collator(0, in_parts=True)(rows)
    assert "parts" not in plain
    assert plain["index"].tolist() == list(range(len(rows)))
    order = batch["index"].tolist()
    assert order == sorted(range(len(rows)), key=lambda i: lengths[i][1])  # equal lengths stay in the plan's order
    for name in ("input_ids", "attention_mask", "labels"):
        assert batch[name].tolist() == plain[name][order].tolist()
    first = 0
    for count, longest in batch["parts"]:
        labels = batch["labels"][first : first + count]
        assert (labels[:, longest:] == -100).all()
        assert (labels[:, longest - 1] != -100).any()
        first += count
    assert first == len(rows)
    counted = padded_tokens([list(range(len(rows)))], *map(list, zip(*lengths, strict=True)))
    assert counted == batch["input_ids"].numel() + decoded(batch["parts"])


def test_parts_take_half_of_the_padding_where_summaries_do_not_follow_the_document():
    rng = np.random.default_rng(0)
    source, target = rng.integers(5, 400, 2000).tolist(), rng.integers(5, 60, 2000).tolist()
    sampler = TokenBudgetBatchSampler(source, target, max_tokens=4000)
    whole = 1 - (sum(source) + sum(target)) / padded_tokens(sampler.plan(0), source, target, worth=1)
    assert sampler.padding_fraction() < 0.6 * whole
