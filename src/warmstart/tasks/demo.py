"""A page to paste a text into and read its summary by a trained run or an export.

    python run.py task=demo ckpt=runs/demo
    python run.py task=demo ckpt=my-model port=8000

It listens on this machine alone unless ``host=`` says otherwise, keeps nothing, and asks no other machine for anything.
Texts are limited, one summary is made at a time, and a few may wait for it.
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
from warmstart.data.cleaning import clean_document, steps_named
from warmstart.data.sources.bad_rows import BadText, text_of
from warmstart.errors import UserError
from warmstart.runs.load import load_writer
from warmstart.runs.saved_model import SavedModel
from warmstart.tasks.check import validate_numbers

LARGEST = 2**20  # bytes of a request: a text of 100,000 words and its escapes
HEARD = 8 * LARGEST  # bytes of a longer one that are read before it is refused
WAITING = 4  # summaries in the making or waited for; one more is turned away
CONNECTIONS = 32
SECONDS = 10.0  # for a whole request to arrive, and for its answer to be taken
LOOPBACK = ("127.0.0.1", "localhost")
HTTP_PORT = 80  # browsers leave it out of the name
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
    """Serve until Ctrl-C."""
    from warmstart.evaluation.summarize import generation_kwargs

    validate_numbers(settings)
    steps_named(settings.data.clean)  # an unknown one is refused before the model is loaded
    model, tokenizers = load_writer(settings, saved)
    kwargs = generation_kwargs(settings.generation)
    search = ", ".join(f"{name}={value}" for name, value in kwargs.items() if value is not None)
    try:
        server = DemoServer(
            (settings.host, settings.port), summarizer(model, tokenizers, settings), str(settings.ckpt), search
        )
    except (OSError, OverflowError) as error:
        raise UserError(
            f"host={settings.host} port={settings.port} cannot be listened on ({error}). Set another port=, or port=0 "
            "for any that is free."
        ) from error
    if settings.host not in LOOPBACK:
        _log.warning(
            "host=%s: every machine that reaches this one can use the page; it asks for no password.", server.host
        )
    print(f"http://{server.host}:{server.server_port}/ (Ctrl-C ends it)", flush=True)
    with server:
        server.serve_forever()


def summarizer(model: Any, tokenizers: Any, settings: Config) -> Summarize:
    """What makes of a text its summary, a line on how much of it was read, and the text cleaned as the run's were."""
    import torch

    from warmstart.evaluation.summarize import generation_kwargs
    from warmstart.evaluation.truecase import restore_case
    from warmstart.model.submodel_config import maximum_positions

    length = min(settings.data.max_source_length, maximum_positions(model.config.encoder) or 10**9)
    kwargs, steps = generation_kwargs(settings.generation), steps_named(settings.data.clean)

    def summarize(document: str) -> tuple[str, str, str]:
        document = clean_document(document, steps)
        (row,) = tokenizers.encode_sources([document], length)
        ids = torch.tensor([row], device=model.device)
        with torch.inference_mode():
            found = model.generate(ids, attention_mask=torch.ones_like(ids), **kwargs)
        (summary,) = tokenizers.decode(found[:, 1:])
        if tokenizers.writes_lower_case:
            summary = restore_case(summary, document)
        cut = " (the longest that it takes: what follows was not read)" if len(row) >= length else ""
        return summary, f"The model read {len(row)} tokens{cut}.", document

    return summarize


class DemoServer(ThreadingTCPServer):
    """The page's server; ``summarize`` runs once at a time. No HTTPServer, which asks the network for its own name."""

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
        """Start a thread for the request, or close it if too many are open."""
        if not self.connections.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve the request, and free its place."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log an error of ours; a client that closes its connection is not one."""
        if not isinstance(sys.exception(), OSError):
            _log.exception("A request failed.")

    @property
    def server_port(self) -> int:
        """The port that it has, also where any was asked for."""
        return int(self.server_address[1])

    def hosts(self) -> set[str] | None:
        """Names that a browser may call this server by; any, where it was told to serve other machines."""
        if self.host not in LOOPBACK:
            return None
        named = {f"{name}:{self.server_port}" for name in LOOPBACK}
        return named | set(LOOPBACK) if self.server_port == HTTP_PORT else named


class UntilDeadline(RawIOBase):
    """Read a connection until a moment. A time-out of the socket alone starts again with each byte of a slow sender."""

    def __init__(self, connection: socket, deadline: float) -> None:
        self.connection, self.deadline = connection, deadline

    def readable(self) -> bool:
        """It is there to be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Wait for some bytes.

        Raises:
            TimeoutError: the moment has come.
        """
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.connection.settimeout(left)
        return self.connection.recv_into(buffer)


class Handler(BaseHTTPRequestHandler):
    """The page (GET), and a summary in it (POST)."""

    server: DemoServer
    timeout = SECONDS
    server_version, sys_version = "warmstart", ""

    def setup(self) -> None:
        """Read by a deadline."""
        super().setup()
        self.rfile.close()
        self.rfile = BufferedReader(UntilDeadline(self.connection, time.monotonic() + SECONDS))

    def do_GET(self) -> None:
        """The empty page."""
        if self._trusted():
            self._page(200 if self.path == "/" else 404, error=None if self.path == "/" else "There is one page: /")

    def do_POST(self) -> None:
        """The page with the summary of the text in the form."""
        if not self._trusted():
            return
        size = self.headers.get("Content-Length", "")
        if not (size.isascii() and size.isdigit()):
            return self._page(411, error="The request does not say its length.")
        if len(size) > 9 or int(size) > LARGEST:
            # A browser that is not heard out shows a broken connection instead of the page.
            if len(size) <= 9:
                self.rfile.read(min(int(size), HEARD))
            return self._page(413, error=f"The text is too long: at most {LARGEST:,} bytes are taken.")
        if self.headers.get_content_type() != "application/x-www-form-urlencoded":
            return self._page(415, error="Only the form's own way of sending a text is taken.")
        try:
            body = self.rfile.read(int(size))
            if len(body) < int(size):
                return self._page(400, error="The request ended before its text did.")
            form = parse_qs(body.decode("ascii"), errors="surrogateescape", max_num_fields=4)
            document = text_of(form.get("document", [""])[0].replace("\r\n", "\n"), "text")
            reference = form.get("reference", [""])[0].replace("\r\n", "\n")
            reference = text_of(reference, "reference") if reference.strip() else ""
        except TimeoutError:
            return self._page(408, error=f"The text did not arrive within {SECONDS:.0f} seconds.")
        except (UnicodeDecodeError, ValueError):
            return self._page(400, error="The request is none that the form sends.")
        except BadText as error:
            return self._page(400, error=f"The form {error}.")
        if not self.server.waiting.acquire(blocking=False):
            return self._page(
                503, document, reference, error="Others wait for a summary already. Try again in a moment."
            )
        try:
            with self.server.one:
                summary, read, cleaned = self.server.summarize(document)
                rows = compared(cleaned, summary, reference)
                if unread := no_score(reference):
                    read = f"{read} {unread}"
        except Exception:  # noqa: BLE001 - the page serves further requests
            _log.exception("A summary failed.")
            return self._page(500, document, reference, error="The summary failed; the reason is in the demo's log.")
        finally:
            self.server.waiting.release()
        self._page(200, document, reference, rows=rows, read=read)

    def _trusted(self) -> bool:
        """Whether our own page asks; a foreign name is another site's that points here, a foreign origin its form's."""
        host, allowed = self.headers.get("Host", ""), self.server.hosts()
        origin = self.headers.get("Origin")
        foreign = (origin is not None and origin != f"http://{host}") or self.headers.get(
            "Sec-Fetch-Site", "same-origin"
        ) not in ("same-origin", "none")
        if (allowed is not None and host not in allowed) or (self.command == "POST" and foreign):
            self._page(403, error="This page answers no other site.")
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
        """Requests are nobody's business."""


def compared(document: str, summary: str, reference: str) -> list[dict[str, str]]:
    """The summary next to the document's first sentence and first three, each with ROUGE where there is a reference.

    A reference that ROUGE cannot read gives no score; :func:`no_score` says why.
    """
    from warmstart.evaluation.baselines import lead
    from warmstart.evaluation.rouge import rouge_scores

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
    """Why there is no ROUGE against this reference; empty where there is one, or no reference."""
    from warmstart.evaluation.rouge import MOST_LOST, lost_letters

    share = lost_letters([reference])
    if share <= MOST_LOST:
        return ""
    return f"No ROUGE: it reads only the letters a to z, and would drop {share:.0%} of the reference's letters."
