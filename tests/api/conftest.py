"""A tiny run on pairs in memory, and another one with another seed."""

import pytest

import warmstart

PLACES = ("river", "school", "harbour", "market", "station", "library", "bridge", "museum")
PAIRS = [
    (f"The council of town {i} met on day {i} and voted to close the {PLACES[i % 8]}.", f"town {i} {PLACES[i % 8]}")
    for i in range(160)
]


@pytest.fixture(scope="session")
def pairs():
    return PAIRS


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("api")
        patch.setenv("WARMSTART_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture(scope="session")
def run(root):
    return warmstart.fit(PAIRS, name="first", output_root=root, overrides={"debug": "tiny"})


@pytest.fixture(scope="session")
def other_run(root, run):
    return warmstart.fit(PAIRS, name="second", output_root=root, overrides=["debug=tiny", "seed=2"])


@pytest.fixture(scope="session")
def summarizer(run):
    return run.summarizer(num_beams=2)
