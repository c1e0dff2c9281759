"""The node's HTTP server, on the node's event loop.

Refuses to take over signals: `worker/process.py` has them.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from tasks.errors import SettingsError

STOP_S = 2
"""Open responses may finish for so long; a node that leaves has drained before."""


class _Quiet(uvicorn.Server):
    """uvicorn without its signal handlers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take none."""
        yield


class HttpServer:
    """One listening socket and what answers on it."""

    def __init__(self, host: str, port: int) -> None:
        """Bind at once, so that the address is known before anything is started.

        Raises:
            SettingsError: the address cannot be had.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((host, port))
        except OSError as error:
            self._socket.close()
            raise SettingsError(
                f"cannot listen on {host}:{port} ({error.strerror}); set MCPFLEET_NODE_HTTP_HOST and _PORT"
            ) from None
        shown = f"[{host}]" if family is socket.AF_INET6 else host
        self.url = f"http://{shown}:{self._socket.getsockname()[1]}"
        self._server: _Quiet | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self, app: ASGIApp) -> None:
        """Answer from now on."""
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="on", timeout_graceful_shutdown=STOP_S, ws="none"
        )
        self._server = _Quiet(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))

    async def stop(self) -> None:
        """Close the socket and wait for open responses, a little."""
        if self._server is None or self._task is None:
            self._socket.close()
            return
        self._server.should_exit = True
        await self._task
