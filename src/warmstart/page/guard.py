"""Protect the page's server: whom it answers, which paths it has, and how large and slow a request may be.

Another site could reach a server on this machine through the user's browser, with a name that resolves to 127.0.0.1 or
with a form that posts here. gradio checks neither, and has paths that read files and fetch other sites.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

LARGEST = 2**20  # bytes of a request
MAX_DISCARDED = 8 * LARGEST  # bytes of a longer request that are read before it is rejected
SECONDS = 10.0  # to receive a whole request, and for the client to take each part of a response
LOOPBACK = ("127.0.0.1", "localhost")
HTTP_PORT = 80  # browsers leave it out of the Host header
HEADERS = {
    # gradio needs inline scripts, and compiles the templates of its components.
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; connect-src 'self'; manifest-src 'self'; "
    "form-action 'none'; base-uri 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}
_READ = ("/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt")
_READ_BELOW = ("/assets/", "/static/", "/gradio_api/heartbeat/")
_READ_OF_API = ("/gradio_api/queue/data", "/gradio_api/info", "/gradio_api/startup-events", "/gradio_api/theme.css")
_WRITE = ("/gradio_api/queue/join", "/gradio_api/cancel", "/gradio_api/reset")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class Refused(Exception):
    """The request is not answered by the page.

    Args:
        status: HTTP status.
        reason: What the user reads.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Guard:
    """An ASGI application in front of the page's.

    Args:
        app: The page's application.
        host: Address that the server listens on.
        port: Its port.
    """

    def __init__(self, app: App, host: str, port: int) -> None:
        self.app = app
        self.hosts: set[str] | None = None
        """Allowed values of the Host header; None allows any, if the server is open to other machines."""
        if host in LOOPBACK:
            self.hosts = {f"{name}:{port}" for name in LOOPBACK} | (set(LOOPBACK) if port == HTTP_PORT else set())

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":  # a websocket, which the page does not use
            return await send({"type": "websocket.close"})
        send = _bounded(send)
        try:
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            self._check_sender(scope, headers)
            _check_path(scope)
            body = b"" if scope["method"] in ("GET", "HEAD") else await _body(headers, receive)
        except Refused as refused:
            return await _answer(refused, send)
        await self.app(scope, _once(body, receive), send)

    def _check_sender(self, scope: Message, headers: dict[str, str]) -> None:
        host, origin = headers.get("host", ""), headers.get("origin")
        is_visit = scope["method"] == "GET" and scope["path"] == "/" and origin is None  # a link on another site
        foreign = (origin is not None and urlsplit(origin).netloc != host) or (
            not is_visit and headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")
        )
        if (self.hosts is not None and host not in self.hosts) or foreign:
            raise Refused(403, "Requests from other sites are not answered.")


def _check_path(scope: Message) -> None:
    path = scope["path"]
    if scope["method"] in ("GET", "HEAD"):
        known = path in (*_READ, *_READ_OF_API) or path.startswith(_READ_BELOW)
    else:
        known = scope["method"] == "POST" and path in _WRITE
    if not known:
        raise Refused(404, "Not found. The only page is /")


async def _body(headers: dict[str, str], receive: Receive) -> bytes:
    """Read the body of a request.

    Raises:
        Refused: It is too long, too slow, or not the page's.
    """
    if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise Refused(415, "Use the form on this page.")
    body, size, more = bytearray(), 0, True
    try:
        async with asyncio.timeout(SECONDS):
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refused(400, "The request did not arrive whole.")
                part, more = message.get("body", b""), message.get("more_body", False)
                size += len(part)
                if size <= LARGEST:
                    body += part
                elif size > MAX_DISCARDED:
                    break
    except TimeoutError:
        raise Refused(408, f"The text did not arrive within {SECONDS:.0f} seconds.") from None
    if size > LARGEST:
        # If the request is not read, a browser reports a broken connection instead of showing the reason.
        raise Refused(413, too_long())
    return bytes(body)


def too_long() -> str:
    """Return the sentence of status 413."""
    return f"The text is too long. The limit is {LARGEST:,} bytes."


def _once(body: bytes, receive: Receive) -> Receive:
    """Return a ``receive`` that gives the body first."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return waiting.pop() if waiting else await receive()

    return receive_again


def _bounded(send: Send) -> Send:
    """Return a ``send`` that adds ``HEADERS``, and gives up on a client that takes nothing."""

    async def send_in_time(message: Message) -> None:
        if message["type"] == "http.response.start":
            names = {name.lower() for name in HEADERS}
            kept = [(name, value) for name, value in message.get("headers", ()) if name.decode().lower() not in names]
            message["headers"] = [*kept, *((name.lower().encode(), value.encode()) for name, value in HEADERS.items())]
        async with asyncio.timeout(SECONDS):
            await send(message)

    return send_in_time


async def _answer(refused: Refused, send: Send) -> None:
    """Send the reason in the form in which gradio's page shows errors."""
    body = json.dumps({"detail": refused.reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(b"connection", b"close"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
