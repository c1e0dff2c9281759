"""What MCP says inside a 200 is measured like what HTTP says by its status: failures that are ours, and traces."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest
from starlette.applications import Starlette
from starlette.types import ASGIApp

from orchestrator.front.app import McpFront
from orchestrator.front.who import METHOD_KEY, TRACE_KEY
from orchestrator.identity.doors import Authenticators
from orchestrator.ledger.audit_values import AuditEntry
from orchestrator.observability.doors import DoorMetrics, MeasuredMcp
from orchestrator.refused_calls import RefusedCalls
from orchestrator.testing.doors import FakeTokens
from orchestrator.testing.front import SETTINGS, Toolbox, modern
from orchestrator.testing.inprocess_fleet import InProcessFleet
from tasks.errors import FleetError, InvalidCall, LedgerDown, UnknownTool
from tasks.invocation import Call, Invocation, Principal
from tasks.testing.clock import FakeClock

TRACE = "0af7651916cd43dd8448eb211c80319c"


class Troubled(InProcessFleet):
    """Raises what it is told to."""

    trouble: FleetError | None = None

    async def accept(self, calls: Sequence[Call], principal: Principal) -> list[Invocation]:
        if self.trouble is not None:
            raise self.trouble
        return await super().accept(calls, principal)


class NoAudit:
    """Keeps nothing."""

    async def write(self, *_entries: AuditEntry) -> int:
        return 0

    async def refused(self, _entry: AuditEntry) -> None:
        pass


class Scene:
    """A door, its fleet and its metrics."""

    def __init__(self) -> None:
        self.failed = 0
        self.registry = CollectorRegistry()
        self.fleet = Troubled(Toolbox().specs(), Toolbox().run)
        doors = DoorMetrics(self.registry, FakeClock(), self._fail)

        def measured(app: ASGIApp) -> ASGIApp:
            return MeasuredMcp(app, doors, METHOD_KEY, TRACE_KEY)

        calls = RefusedCalls(self.fleet, NoAudit(), self._fail)
        self.front = McpFront(calls, Authenticators([FakeTokens()]), SETTINGS, measured=measured)

    def _fail(self) -> None:
        self.failed += 1

    @asynccontextmanager
    async def asked(self) -> AsyncIterator[httpx.AsyncClient]:
        app = Starlette(routes=self.front.routes())
        transport = httpx.ASGITransport(app)
        async with (
            self.front.running(),
            httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:1") as client,
        ):
            yield client


async def call(client: httpx.AsyncClient, **meta: object) -> dict[str, Any]:
    """One tools/call; with a progress token it takes the SDK's way."""
    body, headers = modern("tools/call", {"name": "t.echo", "arguments": {}, "_meta": meta})
    answer = await client.post("/mcp", json=body, headers=headers)
    assert answer.status_code < 500, answer.text
    text = answer.text.rpartition("data: ")[2] if "event-stream" in answer.headers["content-type"] else answer.text
    found: dict[str, Any] = httpx.Response(200, text=text).json()
    return found


WAYS: list[dict[str, object]] = [{}, {"progressToken": "p"}]


@pytest.mark.parametrize("meta", WAYS)
async def test_a_call_that_the_fleet_could_not_take_counts_against_it(meta: dict[str, object]) -> None:
    """As a 5xx of the HTTP door does; once, and the same on both ways through this one."""
    scene = Scene()
    scene.fleet.trouble = LedgerDown("away")
    async with scene.asked() as client:
        assert "error" in await call(client, **meta)
    assert scene.failed == 1


@pytest.mark.parametrize("meta", WAYS)
@pytest.mark.parametrize("trouble", [UnknownTool("no.such", []), InvalidCall("wrong"), None])
async def test_a_callers_own_mistake_does_not(trouble: FleetError | None, meta: dict[str, object]) -> None:
    """Nor does a call that went well."""
    scene = Scene()
    scene.fleet.trouble = trouble
    async with scene.asked() as client:
        assert ("error" in await call(client, **meta)) is (trouble is not None)
    assert scene.failed == 0


@pytest.mark.parametrize("meta", WAYS)
async def test_a_request_carries_the_trace_of_its_call(meta: dict[str, object]) -> None:
    """As an exemplar of the door's histogram, in the format that has them."""
    scene = Scene()
    async with scene.asked() as client:
        await call(client, traceparent=f"00-{TRACE}-b7ad6b7169203331-01", **meta)
    text = generate_latest(scene.registry).decode()
    [bucket] = [line for line in text.splitlines() if TRACE in line]
    assert bucket.startswith('mcpfleet_door_seconds_bucket{door="mcp",')
    assert 'operation="tools/call"' in bucket
