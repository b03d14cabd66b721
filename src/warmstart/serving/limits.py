"""Limit how many requests are open and how long each may take, and count them."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.responses import JSONResponse

from warmstart.config.serving import ServeSettings
from warmstart.serving.endpoints import STREAM, SUMMARIZE, timed_out
from warmstart.serving.metrics import Metrics

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]
_CLIENT_LEFT = 499  # as nginx logs it


class Limits:
    """Middleware of the two endpoints that summarize.

    LitServe's own timeout ends with the wait in its queue; this one includes a slow sender, the summary and a slow
    reader.

    Args:
        app: The application.
        settings: The group ``serve`` of the config.
        metrics: What is counted.
    """

    def __init__(self, app: App, settings: ServeSettings, metrics: Metrics) -> None:
        self.app, self.settings, self.metrics, self.open = app, settings, metrics, 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http" or scope["path"] not in (SUMMARIZE, STREAM):
            await self.app(scope, receive, send)
            return
        began, status, is_complete = time.perf_counter(), 0, False

        async def counted(message: Message) -> None:
            nonlocal status, is_complete
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)
            is_complete = message["type"] == "http.response.body" and not message.get("more_body")

        try:
            if self.open >= self.settings.max_open_requests:
                sentence = f"{self.open} requests are open, the most that are accepted. Try again in a second."
                await JSONResponse({"detail": sentence}, 429, {"Retry-After": "1"})(scope, receive, counted)
                return
            self.open += 1
            self.metrics.open.set(self.open)
            try:
                async with asyncio.timeout(self.settings.timeout_seconds):
                    if await self._client_left(scope, receive, counted) and not is_complete:
                        status = _CLIENT_LEFT
            except TimeoutError:
                sentence = timed_out(self.settings.timeout_seconds)
                if status:  # in a stream
                    line = json.dumps({"error": sentence}) + "\n"
                    await send({"type": "http.response.body", "body": line.encode()})
                    status = 504
                else:
                    await JSONResponse({"detail": sentence}, 504)(scope, receive, counted)
            finally:
                self.open -= 1
                self.metrics.open.set(self.open)
        finally:
            self.metrics.ended(scope["path"], status or _CLIENT_LEFT, time.perf_counter() - began)

    async def _client_left(self, scope: Message, receive: Receive, send: Send) -> bool:
        """Run the application until its end, or until the client has closed the connection; return whether it has.

        A summary for nobody would keep its place among the open requests.
        """
        is_read = asyncio.Event()

        async def passed() -> Message:
            message = await receive()
            if not message.get("more_body"):
                is_read.set()
            return message

        async def left() -> None:
            await is_read.wait()
            while (await receive())["type"] != "http.disconnect":
                pass

        app, leaving = asyncio.ensure_future(self.app(scope, passed, send)), asyncio.ensure_future(left())
        try:
            await asyncio.wait((app, leaving), return_when=asyncio.FIRST_COMPLETED)
            if app.done():
                app.result()
            return not app.done()
        finally:
            for task in (app, leaving):
                task.cancel()
            await asyncio.gather(app, leaving, return_exceptions=True)
