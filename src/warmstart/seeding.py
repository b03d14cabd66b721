"""Seeds that depend on the position in a run, not on what was drawn before."""

import numpy as np


def seed_of(*position: int) -> int:
    """Derive a 64-bit seed for torch from the run's seed and numbers such as the rank or the example.

    A sum would not do: seed 1 at example 3 would draw the same numbers as seed 2 at example 2.

    Args:
        position: The run's seed and the numbers.
    """
    return int(np.random.SeedSequence(position).generate_state(1, np.uint64)[0])
