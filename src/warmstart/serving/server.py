"""Start the worker and the HTTP server of ``task=serve``, and end both."""

import logging
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.managers import SyncManager
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from litserve import LitServer
from litserve.connector import check_cuda_with_nvidia_smi
from litserve.utils import WorkerSetupStatus, wrap_litserve_start
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from warmstart import __version__
from warmstart.config.schema import Config
from warmstart.config.serving import ServeSettings
from warmstart.errors import UserError
from warmstart.printing import say
from warmstart.serving.endpoints import SUMMARIZE, Endpoints
from warmstart.serving.limits import Limits
from warmstart.serving.metrics import Metrics
from warmstart.serving.worker import Worker, configure_logging, end_with_the_service

LOOPBACK = ("127.0.0.1", "localhost")
SECONDS_TO_END = 3  # open requests are given this time at the end of the service
SECONDS_BETWEEN_CHECKS = 0.5  # of whether the worker is alive

_log = logging.getLogger(__name__)


def serve(settings: Config) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Args:
        settings: The config of the task.

    Raises:
        UserError: The model cannot be loaded, or the port cannot be opened.
    """
    configure_logging()
    serve = settings.serve
    server = _server(settings)
    SyncManager.register(end_with_the_service.__name__, end_with_the_service)  # called in the process of the manager
    # LitServer.run() forks the HTTP server, which then does not learn that a worker has died: its requests would wait
    # for ever. Here both are one process, in which LitServe answers them with an error.
    with (
        _ended_by_signals(),
        _sigint_blocked(),
        wrap_litserve_start(server, worker_monitor=True),
        _quiet_end(),
        _sigint_blocked(signal.SIG_UNBLOCK),
        _opened(serve.host, serve.port) as listening,
    ):
        server.manager.end_with_the_service()
        _wait_for(server)
        listening.listen()  # before the URL is printed: a program may wait for it
        if serve.host not in LOOPBACK:
            _log.warning(
                "serve.host=%s: every machine that can reach this one can use the service; there is no password.",
                serve.host,
            )
        config = uvicorn.Config(
            server.app,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=SECONDS_TO_END,
        )
        name = f"[{serve.host}]" if ":" in serve.host else serve.host
        say(f"http://{name}:{listening.getsockname()[1]}/docs (stop with Ctrl-C)")
        uvicorn.Server(config).run(sockets=[listening])


def _server(settings: Config) -> LitServer:
    serve = settings.serve
    metrics = Metrics(lambda: server.litapi_request_queues[SUMMARIZE].qsize())
    hosts = {"allowed_hosts": allowed_hosts(serve), "www_redirect": False}
    on_gpu = settings.trainer.accelerator != "cpu" and check_cuda_with_nvidia_smi()
    worker = Worker(settings, Endpoints(serve, metrics))
    server = LitServer(
        worker,
        accelerator="cuda" if on_gpu else "cpu",
        devices=1,
        timeout=serve.timeout_seconds,
        max_payload_size=serve.max_body_bytes,
        restart_workers=True,
        model_metadata={"model": Path(str(settings.ckpt)).name, "warmstart": __version__},
        # The last one comes first: a page of another site, whose name resolves to this machine, counts as nothing.
        middlewares=[(Limits, {"settings": serve, "metrics": metrics}), (TrustedHostMiddleware, hosts)],
    )
    server.monitor_internal = SECONDS_BETWEEN_CHECKS
    _add_pages(server.app, settings, metrics)
    return server


def allowed_hosts(serve: ServeSettings) -> list[str]:
    """Return the names that the Host header may have.

    Raises:
        UserError: ``serve.allowed_hosts`` has a pattern of another form than ``*.example.org``.
    """
    for name in serve.allowed_hosts:
        if name != "*" and "*" in name.removeprefix("*."):
            raise UserError(
                f"serve.allowed_hosts has {name!r}, which is not a pattern. Write *.example.org for all names below "
                "example.org, or * for every name."
            )
    named = serve.allowed_hosts or ([] if serve.host in LOOPBACK else ["*"])
    return [*named, *LOOPBACK]


def _add_pages(app: FastAPI, settings: Config, metrics: Metrics) -> None:
    """Add ``/metrics``, a page for ``/docs`` that loads nothing from other hosts, and errors in words."""
    app.title, app.version = "warmstart", __version__
    app.description = f"Summaries by {Path(str(settings.ckpt)).name}."
    app.router.routes = [route for route in app.routes if getattr(route, "path", "") not in ("/docs", "/redoc")]
    environment = Environment(
        loader=PackageLoader("warmstart.serving"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    template = environment.get_template("docs.html.j2")

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        return HTMLResponse(template.render(schema=app.openapi(), base=str(request.base_url).rstrip("/")))

    @app.get("/metrics", response_class=Response)
    async def metrics_page() -> Response:
        """Return what was counted, in the format of Prometheus."""
        return Response(metrics.page(), media_type=CONTENT_TYPE_LATEST)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        sentence = error.detail
        if error.status_code == 413 and sentence == "Payload too large":  # LitServe's
            sentence = f"The request has more than {settings.serve.max_body_bytes:,} bytes. Send a shorter text."
        elif error.status_code == 400:  # FastAPI's
            sentence = 'The request cannot be read. Send {"text": "..."} as application/json in UTF-8.'
        return JSONResponse({"detail": sentence}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        sentence = 'The request is not a JSON object with a text. Send {"text": "..."} as application/json.'
        return JSONResponse({"detail": sentence}, 422)


def _wait_for(server: LitServer) -> None:
    """Wait until the worker has loaded the model.

    Raises:
        UserError: It cannot be loaded.
    """
    (worker,) = server.inference_workers
    while WorkerSetupStatus.READY not in server.workers_setup_status.values():
        if not worker.is_alive():
            reason = server.lit_api.reason
            if reason.empty():
                raise RuntimeError(f"The worker ended with status {worker.exitcode} before it had loaded the model.")
            raise UserError(reason.get())
        time.sleep(0.05)
    server.lit_api.was_ready.set()


@contextmanager
def _opened(host: str, port: int) -> Iterator[socket.socket]:
    """Open the port; it is listened on when the model is loaded."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except OSError as error:
            raise UserError(
                f"serve.host={host} serve.port={port} cannot be opened ({error}). Set another serve.port=, or "
                "serve.port=0 for any free port."
            ) from error
        yield listening


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM end the service as Ctrl-C does: its default action would leave the worker behind."""

    def end(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _quiet_end() -> Iterator[None]:
    """Silence LitServe at the end: its monitor logs a traceback when the queues are gone."""
    try:
        yield
    finally:
        logging.getLogger("litserve").setLevel(logging.CRITICAL + 1)


@contextmanager
def _sigint_blocked(how: int = signal.SIG_BLOCK) -> Iterator[None]:
    """Block Ctrl-C in this thread, or let it in again; threads and processes that are started meanwhile never get it.

    A terminal sends it to all processes, but only this one ends the others.
    """
    before = signal.pthread_sigmask(how, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
