"""HTTP+SSE, the transport of clients older than 2025-03-26. Served only where it is switched on.

Its sessions live in this process: with several replicas a client must stay with one.
"""

from __future__ import annotations

from typing import Any

from mcp.server.lowlevel.server import Server
from mcp.server.sse import SseServerTransport
from mcp.server.transport_security import TransportSecuritySettings
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from orchestrator.front.guard import Guard
from orchestrator.front.ports import Verifier
from orchestrator.front.settings import FrontSettings


class SseDoor:
    """GET opens the stream; the SDK says in it where to POST."""

    def __init__(self, server: Server[Any], transport: SseServerTransport) -> None:
        self._server = server
        self._transport = transport

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        try:
            async with self._transport.connect_sse(scope, receive, send) as (reads, writes):
                await self._server.run(reads, writes, self._server.create_initialization_options())
        except ValueError:
            return  # the transport has answered already: wrong Host or Origin


def sse_routes(
    server: Server[Any], verifier: Verifier, settings: FrontSettings, security: TransportSecuritySettings
) -> list[BaseRoute]:
    """The two routes of the old transport."""
    path = settings.sse_path or "/sse"
    messages = f"{path}/messages"
    transport = SseServerTransport(f"{messages}/", security, settings.body_limit_bytes)

    def guarded(app: ASGIApp) -> Guard:
        return Guard(app, verifier, has_sessions=True, metadata=settings.resource_metadata)

    return [
        Route(path, endpoint=guarded(SseDoor(server, transport)), methods=["GET"]),
        Mount(messages, app=guarded(transport.handle_post_message)),
    ]
