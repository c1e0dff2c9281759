"""AuthGuardian as an MCP server of its own: its tools, its resources, and who is told when those change.

Sessions of the handshake era are kept here, other than at the fleet's own door: without one nobody could be told
of a change. They live in the orchestrator that leads; after a change of leader a client initializes again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
from mcp.server.context import HandlerResult, ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.server.session import ServerSession
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ResourceUpdated
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    SubscribeRequestParams,
    SubscriptionsListenRequestParams,
    UnsubscribeRequestParams,
)
from starlette.routing import BaseRoute, Route

from orchestrator.front.exact_json import write
from orchestrator.front.grant_tools import GrantTools, Guardian, Refused, shown
from orchestrator.front.guard import Guard
from orchestrator.front.ports import Verifier
from orchestrator.front.settings import FrontSettings
from orchestrator.front.who import principal_of
from orchestrator.ledger.grant_values import GrantRow, GrantState
from tasks.clock import Clock
from tasks.invocation import FLEET_TENANT, Principal

PATH = "/mcp/guard"
ACTIVE, AUDIT, PENDING, RESOURCES = "grants://active", "grants://audit", "grants://pending", "grants://resources"
CHANGING = (ACTIVE, AUDIT, PENDING)
BODY_LIMIT_BYTES = 256 * 1024
"""A request is a few words and a justification."""
SESSIONS_MAX = 1000
TELLS_S = 2.0
"""One client; who reads slower is told no more, so that he holds up nobody else."""
AUDIT_EVENTS = 1000
"""Newest, in one reading; `mcpfleet audit` has all of them."""
_ABOUT = {
    ACTIVE: "Grants that are good now",
    AUDIT: "What was asked, decided and revoked, newest first",
    PENDING: "Requests that wait for a person",
    RESOURCES: "What can be asked for",
}
INSTRUCTIONS = (
    "Ask here before you use what needs a permission: request_permission says granted (with a token for the call's "
    "_meta io.mcpfleet/grant), denied, or pending while a person is asked. Ask for as little as you need."
)
Ctx = ServerRequestContext[Any, Any]


class GuardFront:
    """The door. Make one per process; enter `running()` once."""

    def __init__(
        self,
        guardian: Guardian,
        verifier: Verifier,
        settings: FrontSettings,
        clock: Clock,
        *,
        types: Mapping[str, Any],
    ) -> None:
        self._guardian, self._clock, self._types = guardian, clock, types
        self._verifier, self._settings = verifier, settings
        self._tools = GrantTools(guardian)
        self._changes = Changes()
        self.server: Server[Any] = Server(
            "mcpfleet-guard",
            version=settings.version,
            title="AuthGuardian",
            instructions=INSTRUCTIONS,
            get_tool_input_schema=lambda _: None,
            on_list_tools=self._list_tools,  # type: ignore[arg-type]
            on_call_tool=self._call_tool,  # type: ignore[arg-type]
            on_list_resources=self._list_resources,  # type: ignore[arg-type]
            on_read_resource=self._read,  # type: ignore[arg-type]
            on_subscribe_resource=self._changes.subscribe,  # type: ignore[arg-type]
            on_unsubscribe_resource=self._changes.unsubscribe,  # type: ignore[arg-type]
            on_subscriptions_listen=self._changes.listen,  # type: ignore[arg-type]
        )
        self.server.middleware.clear()
        self._sessions = StreamableHTTPSessionManager(
            self.server,
            security_settings=TransportSecuritySettings(
                allowed_hosts=list(settings.allowed_hosts), allowed_origins=list(settings.allowed_origins)
            ),
            max_request_body_size=BODY_LIMIT_BYTES,
        )

    def routes(self) -> list[BaseRoute]:
        """To be added to the API's routes."""
        app, metadata = StreamableHTTPASGIApp(self._sessions), self._settings.resource_metadata
        return [Route(PATH, endpoint=Guard(app, self._verifier, has_sessions=True, metadata=metadata))]

    def on_refused(self, told: Refused) -> None:
        """Who hears of what it refuses."""
        self._tools.on_refused = told

    def changed(self, tenant: str) -> None:
        """Something about this tenant's grants did."""
        self._changes.note(tenant)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """To be entered for as long as the app serves."""
        telling = asyncio.create_task(self._changes.run())
        try:
            async with self._sessions.run():
                yield
                self._changes.close()
        finally:
            telling.cancel()
            with suppress(asyncio.CancelledError):
                await telling

    async def _list_tools(self, ctx: Ctx, _params: PaginatedRequestParams | None) -> HandlerResult:
        tools = self._tools.definitions(principal_of(ctx))
        return {"resultType": "complete", "tools": tools, "ttlMs": 0, "cacheScope": "private"}

    async def _call_tool(self, ctx: Ctx, params: CallToolRequestParams) -> HandlerResult:
        if not self._tools.has(params.name):
            raise MCPError(INVALID_PARAMS, f"no tool {params.name[:64]!r} here", {"code": "unknown_tool"})
        by = principal_of(ctx)  # its trust is what the door measured
        return await self._tools.call(params.name, params.arguments or {}, by, by.trust)

    async def _list_resources(self, ctx: Ctx, _params: PaginatedRequestParams | None) -> HandlerResult:
        principal_of(ctx)
        listed = [
            {"uri": uri, "name": uri.removeprefix("grants://"), "description": about, "mimeType": "application/json"}
            for uri, about in _ABOUT.items()
        ]
        return {"resultType": "complete", "resources": listed, "ttlMs": 0, "cacheScope": "private"}

    async def _read(self, ctx: Ctx, params: ReadResourceRequestParams) -> HandlerResult:
        uri, by = str(params.uri), principal_of(ctx)
        if uri not in _ABOUT:
            raise MCPError(INVALID_PARAMS, f"no resource {uri[:64]!r}; there are {', '.join(_ABOUT)}")
        text = write(self._content(uri, by)).decode()
        contents = [{"uri": uri, "mimeType": "application/json", "text": text}]
        return {"resultType": "complete", "contents": contents, "ttlMs": 0, "cacheScope": "private"}

    def _content(self, uri: str, by: Principal) -> dict[str, Any]:
        if uri == RESOURCES:
            return {"resources": {name: kind.model_dump(mode="json") for name, kind in self._types.items()}}
        rows, now = self._guardian.listing(by), self._clock.wall_s()
        if uri == ACTIVE:
            return {"grants": [shown(row) for row in rows if row.is_active(now)]}
        if uri == PENDING:
            return {"requests": [shown(row) for row in rows if row.state == GrantState.PENDING]}
        events = sorted((event for row in rows for event in events_of(row)), key=lambda event: -event["at"])
        return {"events": events[:AUDIT_EVENTS]}


class Changes:
    """Who is told, in both eras. Told is only that there is something new: what it is, each reads for himself."""

    def __init__(self) -> None:
        self._listening: dict[str, tuple[InMemorySubscriptionBus, ListenHandler]] = {}
        """By tenant: nobody learns from another one's changes when they were."""
        self._sessions: dict[int, tuple[ServerSession, str, set[str]]] = {}
        self._changed: set[str] = set()
        self._ring = asyncio.Event()

    async def subscribe(self, ctx: Ctx, params: SubscribeRequestParams) -> HandlerResult:
        """Handshake era; the session is told."""
        uri = str(params.uri)
        if uri not in CHANGING:
            raise MCPError(INVALID_PARAMS, f"{uri[:64]!r} does not change; those that do: {', '.join(CHANGING)}")
        if id(ctx.session) not in self._sessions and len(self._sessions) >= SESSIONS_MAX:
            self._sessions.pop(next(iter(self._sessions)))
        kept = self._sessions.setdefault(id(ctx.session), (ctx.session, principal_of(ctx).tenant, set()))
        kept[2].add(uri)
        return {}

    async def unsubscribe(self, ctx: Ctx, params: UnsubscribeRequestParams) -> HandlerResult:
        """The session is not told any more."""
        _, _, uris = self._sessions.get(id(ctx.session), (None, "", set[str]()))
        uris.discard(str(params.uri))
        if not uris:
            self._sessions.pop(id(ctx.session), None)
        return {}

    async def listen(self, ctx: Ctx, params: SubscriptionsListenRequestParams) -> HandlerResult:
        """2026 era: the stream is the answer."""
        return await self._of(principal_of(ctx).tenant)[1](ctx, params)

    def note(self, tenant: str) -> None:
        """Tell them soon; several changes at once are one."""
        self._changed.add(tenant)
        self._ring.set()

    async def run(self) -> None:
        """Tell, until cancelled."""
        while True:
            await self._ring.wait()
            self._ring.clear()
            changed, self._changed = self._changed, set()
            for tenant in changed | {FLEET_TENANT}:
                await self._tell(tenant)

    def close(self) -> None:
        """End the streams with a word."""
        for _, handler in self._listening.values():
            handler.close()

    async def _tell(self, tenant: str) -> None:
        if tenant in self._listening:
            for uri in CHANGING:
                await self._listening[tenant][0].publish(ResourceUpdated(uri=uri))
        for key, (session, whose, uris) in list(self._sessions.items()):
            if whose == tenant:
                await self._tell_session(key, session, uris)

    async def _tell_session(self, key: int, session: ServerSession, uris: set[str]) -> None:
        try:
            async with asyncio.timeout(TELLS_S):
                for uri in sorted(uris):
                    await session.send_resource_updated(uri)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, TimeoutError):
            self._sessions.pop(key, None)

    def _of(self, tenant: str) -> tuple[InMemorySubscriptionBus, ListenHandler]:
        if tenant not in self._listening:
            bus = InMemorySubscriptionBus()
            self._listening[tenant] = bus, ListenHandler(bus)
        return self._listening[tenant]


def events_of(row: GrantRow) -> list[dict[str, Any]]:
    """What happened to one request, each with its time."""
    about = {
        "grant": row.id,
        "agent_id": row.agent,
        "resource_type": row.resource_type,
        "scope": row.scope.split(),
    }
    asked = {"at": row.asked_at, "act": "requested", "by": row.requested_by, "justification": row.justification}
    events = [asked | about]
    if row.decided_at is not None:
        act = "denied" if row.expires_at is None else "granted"
        rules = {"rules": row.rules.split(), "reason": row.reason}
        events.append({"at": row.decided_at, "act": act, "by": row.decided_by} | about | rules)
    if row.revoked_at is not None:
        events.append({"at": row.revoked_at, "act": "revoked", "by": row.revoked_by} | about)
    return events
