"""Serve the page with uvicorn, on a socket that was opened before the model was loaded."""

import asyncio
import socket
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from warmstart.errors import UserError
from warmstart.page import guard

CONNECTIONS = 64  # a browser opens six for a page


def opened(host: str, port: int) -> socket.socket:
    """Open the port.

    Args:
        host: Address to listen on.
        port: Port; 0 takes any free one.

    Raises:
        UserError: It cannot be opened.
    """
    try:
        return socket.create_server((host, port))
    except (OSError, OverflowError) as error:
        raise UserError(
            f"host={host} port={port} cannot be opened ({error}). Set another port=, or port=0 for any free port."
        ) from error


def server_of(app: guard.App, listening: socket.socket, host: str) -> uvicorn.Server:
    """Return the server of an application behind the guard; ``run(sockets=[listening])`` serves until Ctrl-C.

    Args:
        app: The application.
        listening: The open port.
        host: Address that was requested.
    """
    return uvicorn.Server(
        uvicorn.Config(
            guard.Guard(app, host, listening.getsockname()[1]),
            http=Protocol,
            ws="none",
            access_log=False,  # requests are private
            log_config=None,
            log_level="critical",
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=int(guard.SECONDS),
            timeout_graceful_shutdown=1,  # a page that is open elsewhere keeps its connection
        )
    )


class Protocol(H11Protocol):
    """A connection that is closed if no whole request header arrives in time, or if too many are open.

    A timeout of the socket would not limit a slow sender: it restarts with each byte.
    """

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Set the deadline of the first request."""
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            transport.close()
        else:
            self._deadline = self.loop.call_later(guard.SECONDS, transport.close)

    def data_received(self, data: bytes) -> None:
        """Read bytes; a complete header ends the wait."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._end_wait()

    def on_response_complete(self) -> None:
        """Set the deadline of the next request."""
        super().on_response_complete()
        self._end_wait()
        if not self.transport.is_closing():
            self._deadline = self.loop.call_later(guard.SECONDS, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the deadline."""
        super().connection_lost(exc)
        self._end_wait()

    def _end_wait(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
