"""Each position has one seed, and different positions have different seeds."""

from warmstart.seeding import seed_of


def test_every_position_has_its_own_seed():
    positions = [(seed, example) for seed in range(20) for example in range(50)]
    assert len({seed_of(*position) for position in positions}) == len(positions)
    assert seed_of(1, 2) == seed_of(1, 2)
    assert 0 <= seed_of(2**32 - 1, 10**9) < 2**64
