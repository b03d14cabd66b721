"""Options of ``task=serve``."""

from dataclasses import dataclass

from warmstart.config.option import option


@dataclass
class ServeSettings:
    """Where the service listens, how it makes batches, and what it refuses."""

    host: str = option(
        "127.0.0.1",
        doc="Address that the service listens on. The default accepts only this machine; 0.0.0.0 accepts every machine "
        "that can reach it.",
    )
    allowed_hosts: list[str] = option(
        default_factory=list,
        doc="Names that a request may have in its Host header, such as `summaries.example.org` or `*.example.org`. "
        "Others are refused with status 400, except 127.0.0.1 and localhost. Empty allows only these two if "
        "`serve.host` is one of them, and otherwise every name: then a page of another site can reach the service "
        "through a browser.",
    )
    port: int = option(8000, at_least=0, at_most=65535, doc="Port that the service listens on. 0 takes any free port.")
    max_batch_tokens: int = option(
        4096,
        at_least=1,
        doc="Largest batch in source tokens, padding included. A longer text is a batch of its own. More tokens are "
        "faster on a GPU and need more memory.",
    )
    max_batch_requests: int = option(
        32,
        at_least=2,
        at_most=1024,
        doc="Most requests that are taken from the queue at once. They are sorted by length and split into batches of "
        "`serve.max_batch_tokens`.",
    )
    wait_milliseconds: int = option(
        5,
        at_least=1,  # with 0, an idle worker of LitServe asks its queue without a pause
        at_most=1000,
        doc="Longest time that a request waits for others to share its batch. More milliseconds make larger batches.",
    )
    max_body_bytes: int = option(
        2**20, at_least=1024, doc="Largest request in bytes. A larger one is refused with status 413."
    )
    max_text_characters: int = option(
        100_000,
        at_least=1,
        doc="Longest text in characters. A longer one is refused with status 413. Of an accepted "
        "text the model reads what `data.max_source_length`, `data.source_windows` and `data.truncation` keep.",
    )
    max_open_requests: int = option(
        128,
        at_least=1,
        doc="Most requests that are summarized or wait at once. A further one is refused with status 429.",
    )
    timeout_seconds: float = option(
        60.0,
        at_least=1,
        at_most=86_400,
        doc="Longest time for a request, from its first byte to the end of its answer. After that it ends with status "
        "504, or within a stream with a line that has an error.",
    )
