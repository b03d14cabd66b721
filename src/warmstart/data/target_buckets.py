"""Target-length buckets of a training batch, so that short summaries are not padded to the longest of the batch.

    target_buckets(90, [40, 9, 12])    # [(2, 12), (1, 40)]: two targets are padded to 12 tokens, one to 40

Batches are sorted by source length. If target lengths do not follow it, much of what the decoder reads is padding
(benchmarks/padding.py). So the examples of a batch are encoded together and decoded in up to two buckets. The loss is
the sum over both, with the same label tokens and the same gradient as the undivided batch.
"""

from collections.abc import Sequence

# A second pass of the decoder has a fixed cost, however small its bucket. benchmarks/padding.py shows that smaller
# values divide twice as many batches and save hardly any more padding.
MIN_SAVING = 1 / 64


def target_buckets(
    longest_source: int, target_lengths: Sequence[int], min_saving: float = MIN_SAVING
) -> list[tuple[int, int]]:
    """Divide a batch, sorted by target length, into one or two buckets.

    Args:
        longest_source: Source tokens of the longest example.
        target_lengths: Label tokens of each example, in any order.
        min_saving: Fraction of the batch's padded tokens that two buckets must save; 1 always returns one bucket.

    Returns:
        Number of examples and longest target of each bucket, shortest first.
    """
    lengths = sorted(target_lengths)
    size, longest = len(lengths), lengths[-1]
    saved, first = max((count * (longest - length), count) for count, length in enumerate(lengths, start=1))
    if not saved or saved < min_saving * size * (longest_source + longest):
        return [(size, longest)]
    return [(first, lengths[first - 1]), (size - first, longest)]
