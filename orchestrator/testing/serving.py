"""An ASGI app behind a real HTTP server on a free loopback port, for tests that need the wire."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from orchestrator.tls import CertifiedHttp

STARTS_WITHIN_S = 30.0


class _Server(uvicorn.Server):
    """uvicorn's, which leaves signals to the tests."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def serving(app: ASGIApp, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """The base URL, while the app answers; over TLS as the orchestrator speaks it, with a context."""
    # asyncio switches Nagle's delay (40 ms an answer) off only where the protocol is named
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, timeout_graceful_shutdown=1, **_tls(context)
        )
        server = _Server(config)
        running = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            async with asyncio.timeout(STARTS_WITHIN_S):
                while not server.started and not running.done():  # noqa: ASYNC110 - uvicorn offers no event
                    await asyncio.sleep(0.01)
            yield f"http{'s' if context else ''}://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            await running


def _tls(context: ssl.SSLContext | None) -> dict[str, Any]:
    if context is None:
        return {}
    return {"http": CertifiedHttp, "ssl_context_factory": lambda *_: context, "proxy_headers": False}
