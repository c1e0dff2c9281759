"""The MCP door over HTTP, assembled: routes for the API's Starlette app, and what runs beside them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from orchestrator.front import exact_json
from orchestrator.front.exchange import Exchange
from orchestrator.front.guard import Guard
from orchestrator.front.ports import Fleet, Verifier
from orchestrator.front.questions import Approvals, NoApprovals
from orchestrator.front.server import build_server
from orchestrator.front.settings import FrontSettings
from orchestrator.front.sse import sse_routes
from tasks.clock import Clock, SystemClock


class McpFront:
    """The fleet's MCP server on HTTP. Make one per process; enter `running()` once.

    `parse` reads a request's body; it may be stricter than JSON itself. `measured` is put around the door.
    """

    def __init__(
        self,
        fleet: Fleet,
        verifier: Verifier,
        settings: FrontSettings,
        clock: Clock | None = None,
        *,
        parse: Callable[[bytes], Any] = exact_json.read,
        approvals: Approvals | None = None,
        measured: Callable[[ASGIApp], ASGIApp] = lambda app: app,
    ) -> None:
        self._settings, self._measured = settings, measured
        self._verifier = verifier
        self._parse = parse
        self._built = build_server(fleet, settings, clock or SystemClock(), approvals or NoApprovals())
        self.server = self._built.server
        self.bus = self._built.bus
        self._security = TransportSecuritySettings(
            allowed_hosts=list(settings.allowed_hosts), allowed_origins=list(settings.allowed_origins)
        )
        self._sessions = StreamableHTTPSessionManager(
            self.server,
            stateless=not settings.legacy_sessions,
            security_settings=self._security,
            max_request_body_size=settings.body_limit_bytes,
        )

    def routes(self) -> list[BaseRoute]:
        """To be added to the API's routes."""
        sdk = StreamableHTTPASGIApp(self._sessions)
        exchange = Exchange(sdk, self._built, self._settings, self._security, self._parse)
        guarded = Guard(
            exchange,
            self._verifier,
            has_sessions=self._settings.legacy_sessions,
            metadata=self._settings.resource_metadata,
        )
        routes: list[BaseRoute] = [Route(self._settings.path, endpoint=self._measured(guarded))]
        if self._settings.sse_path is not None:
            routes += sse_routes(self.server, self._verifier, self._settings, self._security)
        return routes

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """To be entered for as long as the app serves."""
        watch = asyncio.create_task(self._built.changes.run())
        try:
            async with self._sessions.run():
                yield
                self.leave_calls_running()
                self._built.listening.close()
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch

    def leave_calls_running(self) -> None:
        """Say so before the HTTP server is stopped: requests it cuts are not cancels by their clients."""
        self._built.calls.leave_calls_running()


def mcp_routes(fleet: Fleet, verifier: Verifier, settings: FrontSettings) -> tuple[McpFront, list[BaseRoute]]:
    """The door and its routes; enter the door's `running()` in the app's lifespan."""
    front = McpFront(fleet, verifier, settings)
    return front, front.routes()
