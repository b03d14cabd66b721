"""The endpoints of a running service: the summaries of task=summarize, whole, in batches and streamed, and refusals."""

import signal
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from running_service import SEARCH, TEXT

from warmstart.api.composing import composed
from warmstart.config.schema import to_settings
from warmstart.tasks import summarize

TEXTS = [TEXT, "Short.", f"{TEXT} {TEXT} {TEXT} {TEXT} {TEXT}", "Another text about a river and a bridge."]


@pytest.fixture(scope="module")
def expected(run, tmp_path_factory):
    """The summaries of task=summarize."""
    folder = tmp_path_factory.mktemp("texts")
    for i, text in enumerate(TEXTS):
        (folder / f"{i}.txt").write_text(text)
    words = [
        "task=summarize",
        "debug=tiny",
        f"ckpt={run.folder}",
        f"input={folder}",
        f"output={folder / 'out'}",
        *SEARCH,
    ]
    with composed(words) as cfg:
        summarize.run(to_settings(cfg), folder)
    found = [(folder / "out" / f"{i}.txt").read_text().removesuffix("\n") for i in range(len(TEXTS))]
    assert len(set(found)) > 1
    assert all(found)
    return found


def test_a_summary_is_that_of_the_task(service, expected):
    response = service.post("/summarize", {"text": TEXT})
    assert response.status_code == 200
    answer = response.json()
    assert answer["summary"] == expected[0]
    assert answer["summary_tokens"] >= 6
    assert not answer["truncated"]


def test_a_long_text_is_read_up_to_the_limit_of_the_model(service):
    answer = service.post("/summarize", {"text": TEXTS[2]}).json()
    assert answer["truncated"]
    assert answer["source_tokens"] == 64


def test_texts_of_mixed_lengths_share_batches_and_keep_their_summaries(service, expected):
    before = _count(service, "warmstart_batch_requests_count")
    with ThreadPoolExecutor(len(TEXTS)) as pool:
        found = list(pool.map(lambda text: service.post("/summarize", {"text": text}).json()["summary"], TEXTS))
    assert found == expected
    assert _count(service, "warmstart_batch_requests_count") - before < len(TEXTS)


def test_a_batch_is_split_by_tokens(service):
    """Six texts of 21 tokens that arrive together need two batches of at most 64 tokens."""
    before = {name: _count(service, name) for name in ("warmstart_batch_tokens_sum", "warmstart_batch_tokens_count")}
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda text: service.post("/summarize", {"text": text}).json(), [TEXT] * 6))
    tokens, batches = (_count(service, name) - value for name, value in before.items())
    assert tokens == sum(answer["source_tokens"] for answer in answers)  # equal lengths: no padding
    assert tokens / batches <= 64
    assert _count(service, 'warmstart_batch_tokens_bucket{le="64.0"}') == _count(
        service, "warmstart_batch_tokens_count"
    )


@pytest.mark.parametrize("i", range(len(TEXTS)))
def test_a_stream_is_the_summary_in_pieces(service, expected, i):
    status, lines = service.lines(TEXTS[i])
    assert status == 200
    assert "".join(line["piece"] for line in lines[:-1]) == expected[i] == lines[-1]["summary"]
    assert lines[-1]["source_tokens"] > 0


def test_streams_and_summaries_at_once(service, expected):
    with ThreadPoolExecutor(4) as pool:
        streams = [pool.submit(service.lines, TEXTS[i]) for i in (0, 2)]
        wholes = [pool.submit(service.post, "/summarize", {"text": TEXTS[i]}) for i in (1, 3)]
    assert [stream.result()[1][-1]["summary"] for stream in streams] == [expected[0], expected[2]]
    assert [whole.result().json()["summary"] for whole in wholes] == [expected[1], expected[3]]


@pytest.mark.parametrize("path", ["/summarize", "/stream"])
@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        ({"text": "a" * 2001}, 413, "The text has 2,001 characters. The limit is 2,000"),
        ({"text": "a" * 9000}, 413, "The request has more than 8,192 bytes"),
        ({"text": " \n"}, 422, "has an empty text"),
        ({"text": "a\0b"}, 422, "NUL character"),
        ({"text": 5}, 422, "not a JSON object with a text"),
        ({"text": TEXT, "num_beams": 4}, 422, "not a JSON object with a text"),
        ([TEXT], 422, "not a JSON object with a text"),
    ],
)
def test_a_refusal_says_why(service, path, body, status, sentence):
    response = service.post(path, body)
    assert response.status_code == status
    assert sentence in response.json()["detail"]


@pytest.mark.parametrize("path", ["/summarize", "/stream"])
def test_a_request_that_is_not_utf8_is_explained(service, path):
    content = b'{"text": "caf\xe9"}'
    response = httpx.post(f"{service.url}{path}", content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    assert response.json()["detail"].endswith('Send {"text": "..."} as application/json in UTF-8.')


def test_a_form_of_another_page_is_refused(service):
    assert httpx.post(f"{service.url}/summarize", data={"text": TEXT}).status_code == 422
    assert httpx.post(f"{service.url}/summarize", content='{"text": "a"}').status_code == 422
    for path in ("/summarize", "/metrics"):
        assert httpx.post(f"{service.url}{path}", json={"text": TEXT}, headers={"Host": "evil.test"}).status_code == 400


def test_requests_beyond_the_queue_and_requests_that_take_too_long(service, expected):
    worker = service.worker
    worker.send_signal(signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(7) as pool:
            found = list(pool.map(lambda _: service.post("/summarize", {"text": TEXT}), range(7)))
    finally:
        worker.send_signal(signal.SIGCONT)
    assert sorted(response.status_code for response in found) == [429, *[504] * 6]
    for response in found:
        if response.status_code == 429:
            assert response.headers["Retry-After"] == "1"
            assert "6 requests are open" in response.json()["detail"]
        else:
            assert "not ready within 10 seconds" in response.json()["detail"]
    assert service.post("/summarize", {"text": TEXT}).json()["summary"] == expected[0]


def test_health_metrics_and_the_openapi_page(service):
    assert service.post("/summarize", {"text": TEXT}).status_code == 200
    health = service.get("/health")
    assert (health.status_code, health.text) == (200, "ok")
    metrics = service.get("/metrics")
    assert metrics.headers["Content-Type"].startswith("text/plain")
    for name in (
        *('warmstart_requests_total{path="/summarize",status="200"}', "warmstart_request_seconds_bucket{"),
        *('warmstart_tokens_total{of="source"}', 'warmstart_tokens_total{of="summary"}', "warmstart_open_requests 0.0"),
        *("warmstart_batch_requests_sum", "warmstart_batch_tokens_sum", "warmstart_queue_requests 0.0"),
    ):
        assert f"\n{name}" in metrics.text
    schema = service.get("/openapi.json").json()
    assert schema["paths"].keys() >= {"/summarize", "/stream", "/health", "/metrics"}
    assert schema["components"]["schemas"]["Text"]["required"] == ["text"]
    page = service.get("/docs").text
    assert "POST /stream" in page
    assert "://" not in page.replace(service.url, "")  # nothing from another host


def _count(service, name):
    (line,) = [line for line in service.get("/metrics").text.splitlines() if line.startswith(f"{name} ")]
    return float(line.rpartition(" ")[2])
