"""Serve a web page that summarises a pasted text with a trained run or an export.

    python run.py task=demo ckpt=runs/demo
    python run.py task=demo ckpt=my-model port=8000

The server accepts connections from this machine only, unless ``host`` is set. It stores nothing and makes no requests
itself. The size of a text is limited. One summary is generated at a time, and a few requests may wait.
"""

import logging
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from io import BufferedReader, RawIOBase
from pathlib import Path
from socket import socket
from socketserver import ThreadingTCPServer
from typing import Any
from urllib.parse import parse_qs

from jinja2 import Environment, PackageLoader, StrictUndefined

from warmstart.config.schema import Config
from warmstart.data.cleaning import steps_named
from warmstart.data.sources.bad_rows import BadText, text_of
from warmstart.errors import UserError
from warmstart.runs.load import load_writer
from warmstart.runs.saved_model import SavedModel
from warmstart.tasks.check import validate_numbers

LARGEST = 2**20  # bytes of a request: 100,000 words in URL encoding
MAX_DISCARDED = 8 * LARGEST  # bytes of a longer request that are read before it is rejected
WAITING = 4  # requests that are summarised or wait; a further one is rejected
CONNECTIONS = 32
SECONDS = 10.0  # to receive a whole request, and to send a response
LOOPBACK = ("127.0.0.1", "localhost")
HTTP_PORT = 80  # browsers leave it out of the Host header
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}

_log = logging.getLogger(__name__)
Summarize = Callable[[str], tuple[str, str, str]]


def run(settings: Config, run_dir: Path, saved: SavedModel | None = None) -> None:
    """Serve the page until Ctrl-C.

    Args:
        settings: the config of the task.
        run_dir: not used.
        saved: the model that ``ckpt`` names, if the caller has opened it.

    Raises:
        UserError: a setting is invalid, the model cannot be loaded, or the port cannot be opened.
    """
    from warmstart.evaluation.summarize import generation_kwargs

    validate_numbers(settings)
    steps_named(settings.data.clean)  # reports unknown steps before the model is loaded
    model, tokenizers = load_writer(settings, saved)
    kwargs = generation_kwargs(settings.generation, tokenizers)
    search = ", ".join(f"{name}={value}" for name, value in kwargs.items() if value is not None)
    try:
        server = DemoServer(
            (settings.host, settings.port), summarizer(model, tokenizers, settings), str(settings.ckpt), search
        )
    except (OSError, OverflowError) as error:
        raise UserError(
            f"host={settings.host} port={settings.port} cannot be opened ({error}). Set another port=, or port=0 for "
            "any free port."
        ) from error
    if settings.host not in LOOPBACK:
        _log.warning(
            "host=%s: every machine that can reach this one can use the page; there is no password.", server.host
        )
    print(f"http://{server.host}:{server.server_port}/ (stop with Ctrl-C)", flush=True)
    with server:
        server.serve_forever()


def summarizer(model: Any, tokenizers: Any, settings: Config) -> Summarize:
    """Return a function that summarises a text.

    The function takes a document. It returns the summary, a line on how many tokens were read, and the document after
    ``data.clean``.
    """
    import torch

    from warmstart.evaluation.summarize import generation_kwargs
    from warmstart.runs.writer import Writer

    writer = Writer(model, tokenizers, settings)
    kwargs = generation_kwargs(settings.generation, tokenizers)

    def summarize(document: str) -> tuple[str, str, str]:
        document = writer.clean(document)
        source = writer.encode(document)
        ids = torch.tensor([source], device=model.device)
        with torch.inference_mode():
            generated = model.generate(ids, attention_mask=torch.ones_like(ids), **kwargs)
        (summary,) = writer.decode(generated[:, 1:])
        is_cut = len(source) >= writer.max_source_length
        truncated = " (its limit; the rest of the text was not read)" if is_cut else ""
        return writer.restore_case(summary, document), f"The model read {len(source)} tokens{truncated}.", document

    return summarize


class DemoServer(ThreadingTCPServer):
    """The server of the page.

    ``summarize`` runs in one thread at a time. The base class is not ``HTTPServer``, which looks up its own name in the
    network.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], summarize: Summarize, model: str, search: str) -> None:
        self.summarize, self.model, self.search = summarize, model, search
        self.host = address[0]
        self.one = threading.Lock()
        self.waiting = threading.BoundedSemaphore(WAITING)
        self.connections = threading.BoundedSemaphore(CONNECTIONS)
        environment = Environment(
            loader=PackageLoader("warmstart.tasks"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )
        self.template = environment.get_template("demo.html.j2")
        super().__init__(address, Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for the request, or close the connection if too many are open."""
        if not self.connections.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve the request, then allow another connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log errors, except those of the connection, such as a client that closes it."""
        if not isinstance(sys.exception(), OSError):
            _log.exception("A request failed.")

    @property
    def server_port(self) -> int:
        """The port that is open, also if port 0 was requested."""
        return int(self.server_address[1])

    def hosts(self) -> set[str] | None:
        """Return the allowed values of the Host header; None allows any, if the server is open to other machines."""
        if self.host not in LOOPBACK:
            return None
        names = {f"{name}:{self.server_port}" for name in LOOPBACK}
        return names | set(LOOPBACK) if self.server_port == HTTP_PORT else names


class UntilDeadline(RawIOBase):
    """Reads a connection until a deadline.

    A timeout of the socket would not limit a slow sender: it restarts with each byte.
    """

    def __init__(self, connection: socket, deadline: float) -> None:
        self.connection, self.deadline = connection, deadline

    def readable(self) -> bool:
        """Return True, as ``io`` requires of a readable stream."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Wait for some bytes, and read them.

        Raises:
            TimeoutError: the deadline has passed.
        """
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.connection.settimeout(left)
        return self.connection.recv_into(buffer)


class Handler(BaseHTTPRequestHandler):
    """Answers GET with the empty page, and POST with a summary."""

    server: DemoServer
    timeout = SECONDS
    server_version, sys_version = "warmstart", ""

    def setup(self) -> None:
        """Set the deadline of the request."""
        super().setup()
        self.rfile.close()
        self.rfile = BufferedReader(UntilDeadline(self.connection, time.monotonic() + SECONDS))

    def do_GET(self) -> None:
        """Send the empty page."""
        if self._trusted():
            found = self.path == "/"
            self._page(200 if found else 404, error=None if found else "Not found. The only page is /")

    def do_POST(self) -> None:
        """Summarise the text of the form, and send the page with the summary."""
        if not self._trusted():
            return
        size = self.headers.get("Content-Length", "")
        if not (size.isascii() and size.isdigit()):
            return self._page(411, error="The request has no Content-Length.")
        if len(size) > 9 or int(size) > LARGEST:
            # If the request is not read, a browser reports a broken connection instead of showing the page.
            if len(size) <= 9:
                self.rfile.read(min(int(size), MAX_DISCARDED))
            return self._page(413, error=f"The text is too long. The limit is {LARGEST:,} bytes.")
        if self.headers.get_content_type() != "application/x-www-form-urlencoded":
            return self._page(415, error="The content type has to be that of an HTML form.")
        try:
            body = self.rfile.read(int(size))
            if len(body) < int(size):
                return self._page(400, error="The request is shorter than its Content-Length.")
            form = parse_qs(body.decode("ascii"), errors="surrogateescape", max_num_fields=4)
            document = text_of(form.get("document", [""])[0].replace("\r\n", "\n"), "text")
            reference = form.get("reference", [""])[0].replace("\r\n", "\n")
            reference = text_of(reference, "reference") if reference.strip() else ""
        except TimeoutError:
            return self._page(408, error=f"The text did not arrive within {SECONDS:.0f} seconds.")
        except (UnicodeDecodeError, ValueError):
            return self._page(400, error="The request cannot be read. Use the form on this page.")
        except BadText as error:
            return self._page(400, error=f"The form {error}.")
        if not self.server.waiting.acquire(blocking=False):
            return self._page(503, document, reference, error="Too many requests are waiting. Try again in a moment.")
        try:
            with self.server.one:
                summary, read, cleaned = self.server.summarize(document)
                rows = compared(cleaned, summary, reference)
                if reason := no_score(reference):
                    read = f"{read} {reason}"
        except Exception:  # noqa: BLE001 - one failed request must not end the server
            _log.exception("A summary failed.")
            return self._page(500, document, reference, error="The summary failed. The log of the demo has the reason.")
        finally:
            self.server.waiting.release()
        self._page(200, document, reference, rows=rows, read=read)

    def _trusted(self) -> bool:
        """Return whether the request comes from this page; otherwise send an error.

        The Host header is another site's if that site's name resolves to this machine. The Origin header is another
        site's if its form posts here.
        """
        host, allowed = self.headers.get("Host", ""), self.server.hosts()
        origin = self.headers.get("Origin")
        foreign = (origin is not None and origin != f"http://{host}") or self.headers.get(
            "Sec-Fetch-Site", "same-origin"
        ) not in ("same-origin", "none")
        if (allowed is not None and host not in allowed) or (self.command == "POST" and foreign):
            self._page(403, error="Requests from other sites are not answered.")
            return False
        return True

    def _page(
        self,
        status: int,
        document: str = "",
        reference: str = "",
        *,
        error: str | None = None,
        rows: Any = (),
        read: str = "",
    ) -> None:
        page = self.server.template.render(
            model=self.server.model,
            search=self.server.search,
            document=document,
            reference=reference,
            error=error,
            rows=rows,
            read=read,
        ).encode("utf-8", "backslashreplace")
        self.connection.settimeout(SECONDS)
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(page)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(page)
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: requests are private."""


def compared(document: str, summary: str, reference: str) -> list[dict[str, str]]:
    """Compare a summary with the first sentence and the first three sentences of its document.

    Args:
        document: the cleaned document.
        summary: its summary.
        reference: the text to score against; may be empty.

    Returns:
        ``name``, ``text`` and ``rouge`` of each text. ``rouge`` is empty without a reference that ROUGE can read.
    """
    from warmstart.evaluation.baselines import lead
    from warmstart.evaluation.metrics.rouge import rouge_scores

    texts = {"Summary": summary}
    texts |= {name: lead([document], n)[0] for name, n in (("First sentence (lead-1)", 1), ("First three (lead-3)", 3))}
    scored = reference and not no_score(reference)
    scores = rouge_scores(list(texts.values()), [reference] * len(texts)) if scored else {}
    return [
        {
            "name": name,
            "text": text,
            "rouge": ", ".join(f"{kind} {values[i]:.1f}" for kind, values in scores.items()),
        }
        for i, (name, text) in enumerate(texts.items())
    ]


def no_score(reference: str) -> str:
    """Return why ROUGE cannot score against a reference; empty if it can, or if there is no reference."""
    from warmstart.evaluation.languages import MOST_LOST, lost_letters

    share = lost_letters([reference])
    if share <= MOST_LOST:
        return ""
    return f"No ROUGE: it reads only the letters a to z, and would ignore {share:.0%} of the reference's letters."
