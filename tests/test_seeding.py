"""A seed follows from its place, and neighbouring places have nothing in common."""

from warmstart.seeding import seed_of


def test_every_place_has_a_seed_of_its_own():
    places = [(seed, example) for seed in range(20) for example in range(50)]
    assert len({seed_of(*place) for place in places}) == len(places)
    assert seed_of(1, 2) == seed_of(1, 2)
    assert 0 <= seed_of(2**32 - 1, 10**9) < 2**64
