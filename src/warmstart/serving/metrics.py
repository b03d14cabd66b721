"""What the service counts, in the format of Prometheus."""

from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_REQUESTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_TOKENS = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)


class Metrics:
    """The counters of one service.

    Args:
        waiting: Returns the number of requests in the queue of the worker.
    """

    def __init__(self, waiting: Callable[[], float]) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter("warmstart_requests", "Requests that ended", ["path", "status"], registry=registry)
        self.errors = Counter("warmstart_errors", "Requests that ended in an error", ["status"], registry=registry)
        self.seconds = Histogram(
            "warmstart_request_seconds", "Time of a request", ["path"], buckets=_SECONDS, registry=registry
        )
        self.tokens = Counter("warmstart_tokens", "Tokens read and written", ["of"], registry=registry)
        self.batch_requests = Histogram(
            "warmstart_batch_requests", "Requests in a batch", buckets=_REQUESTS, registry=registry
        )
        self.batch_tokens = Histogram(
            "warmstart_batch_tokens", "Source tokens in a batch, padding included", buckets=_TOKENS, registry=registry
        )
        self.open = Gauge("warmstart_open_requests", "Requests that are summarized or wait", registry=registry)
        queue = Gauge("warmstart_queue_requests", "Requests in the queue of the worker", registry=registry)
        queue.set_function(waiting)

    def answered(self, answer: Mapping[str, Any]) -> None:
        """Count the tokens of an answer of the worker, and its batch if it is the first one of it."""
        if "summary" in answer:
            self.tokens.labels("source").inc(answer["source_tokens"])
            self.tokens.labels("summary").inc(answer["summary_tokens"])
        if "batch_tokens" in answer:
            self.batch_requests.observe(answer["batch_requests"])
            self.batch_tokens.observe(answer["batch_tokens"])

    def ended(self, path: str, status: int, seconds: float) -> None:
        """Count a request that ended."""
        self.requests.labels(path, str(status)).inc()
        self.seconds.labels(path).observe(seconds)
        if status >= 400:
            self.errors.labels(str(status)).inc()

    def page(self) -> bytes:
        """Return the text that Prometheus reads."""
        return generate_latest(self.registry)
