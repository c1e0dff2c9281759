"""Tells clients that the fleet's list of tools changed.

In the 2026 era over `subscriptions/listen`, to older ones over the session they hold. Every replica
watches the fleet itself, so none has to tell another.
"""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import structlog
from mcp.server.context import ServerRequestContext
from mcp.server.session import ServerSession
from mcp.server.subscriptions import SubscriptionBus, ToolsListChanged
from mcp_types import NotificationParams

from orchestrator.front.ports import Fleet

log = structlog.get_logger()

SESSIONS_MAX = 10_000
"""Sessions kept, as many as the SDK keeps; the oldest is forgotten first."""


class ToolChanges:
    """Watches the fleet's tool list for this replica."""

    def __init__(self, fleet: Fleet, bus: SubscriptionBus, *, interval_s: float) -> None:
        self._fleet = fleet
        self._bus = bus
        self._interval_s = interval_s
        self._sessions: dict[int, ServerSession] = {}

    async def initialized(self, ctx: ServerRequestContext[Any, Any], _params: NotificationParams) -> None:
        """A client of the handshake era is ready; it is told only where it holds a session."""
        if not ctx.session.can_send_request:
            return
        self._sessions[id(ctx.session)] = ctx.session
        if len(self._sessions) > SESSIONS_MAX:
            self._sessions.pop(next(iter(self._sessions)))

    async def run(self) -> None:
        """Watch until cancelled."""
        seen = self._fleet.tools_version
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                if self._fleet.tools_version != seen:
                    seen = self._fleet.tools_version
                    await self.tell()
            except Exception:  # top of a loop
                log.exception("tool_changes_not_told")

    async def tell(self) -> None:
        """Tell everybody once."""
        await self._bus.publish(ToolsListChanged())
        for key, session in list(self._sessions.items()):
            try:
                await session.send_tool_list_changed()
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                self._sessions.pop(key, None)
