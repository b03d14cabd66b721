"""A tiny run, and a service of it."""

import signal

import pytest
from running_service import started

import warmstart

PAIRS = [
    (f"The council of town {i} met on day {i} and voted to close the river.", f"town {i} river") for i in range(80)
]


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    pytest.importorskip("litserve")
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("serving")
        patch.setenv("WARMSTART_CACHE", str(folder / "cache"))
        yield warmstart.fit(PAIRS, name="served", output_root=folder, overrides={"debug": "tiny"})


@pytest.fixture(scope="module")  # while it waits for requests it takes a seventh of a core
def service(run, tmp_path_factory):
    limits = ("max_text_characters=2000", "max_body_bytes=8192", "max_open_requests=6", "timeout_seconds=10")
    words = [f"serve.{one}" for one in (*limits, "max_batch_tokens=64", "wait_milliseconds=300")]
    with started(tmp_path_factory.mktemp("service"), run, *words) as service:
        yield service
        assert service.end(signal.SIGTERM) == (128 + signal.SIGTERM, [])
