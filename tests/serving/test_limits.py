"""The middleware alone: a request that takes too long, before or within its answer, and a client that left."""

import asyncio
import json

import pytest

pytest.importorskip("prometheus_client")
pytest.importorskip("starlette")

from warmstart.config.serving import ServeSettings
from warmstart.serving.limits import Limits
from warmstart.serving.metrics import Metrics

SCOPE = {"type": "http", "path": "/stream", "method": "POST", "headers": []}


def answered(app, settings):
    """The messages that a client gets, and the metrics."""
    sent, metrics = [], Metrics(lambda: 0)

    async def send(message):
        sent.append(message)

    asyncio.run(Limits(app, settings, metrics)(SCOPE, None, send))
    return sent, metrics.page().decode()


async def never(scope, receive, send):
    await asyncio.Event().wait()


async def stops_within(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b'{"piece": "a"}\n', "more_body": True})
    await never(scope, receive, send)


async def client_left(scope, receive, send):
    """Ends without an answer."""


def test_too_late_without_an_answer():
    (start, body), page = answered(never, ServeSettings(timeout_seconds=0.05))
    assert start["status"] == 504
    assert "not ready within 0.05 seconds" in json.loads(body["body"])["detail"]
    assert 'warmstart_errors_total{status="504"} 1.0' in page


def test_too_late_within_a_stream():
    sent, page = answered(stops_within, ServeSettings(timeout_seconds=0.05))
    assert [message["type"] for message in sent] == ["http.response.start", *["http.response.body"] * 2]
    assert "not ready" in json.loads(sent[-1]["body"])["error"]
    assert not sent[-1].get("more_body")
    assert 'warmstart_requests_total{path="/stream",status="504"} 1.0' in page


def test_a_summary_for_a_client_that_left_is_not_waited_for():
    messages = [{"type": "http.request", "body": b"{}", "more_body": False}, {"type": "http.disconnect"}]
    ended = []

    async def summarizes(scope, receive, send):
        await receive()
        try:
            await never(scope, receive, send)
        finally:
            ended.append(True)

    async def receive():
        return messages.pop(0)

    metrics = Metrics(lambda: 0)
    asyncio.run(Limits(summarizes, ServeSettings(), metrics)(SCOPE, receive, None))
    assert ended
    assert 'status="499"' in metrics.page().decode()
    assert "warmstart_open_requests 0.0" in metrics.page().decode()


def test_a_client_that_left_is_counted():
    sent, page = answered(client_left, ServeSettings())
    assert not sent
    assert 'status="499"' in page
    assert "warmstart_open_requests 0.0" in page
