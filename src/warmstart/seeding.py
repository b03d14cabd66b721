"""Derive seeds from the position in a run, so that they do not depend on earlier random draws."""

import numpy as np


def seed_of(*position: int) -> int:
    """Derive a 64-bit seed for torch from the run's seed and numbers such as the rank or the example.

    The numbers are hashed. If they were added, seed 1 at example 3 would equal seed 2 at example 2.

    Args:
        position: The run's seed, then the other numbers.
    """
    return int(np.random.SeedSequence(position).generate_state(1, np.uint64)[0])
