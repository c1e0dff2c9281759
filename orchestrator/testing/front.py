"""The MCP front over a fleet in this process, for tests: what its tools do is told by name."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import orjson
from starlette.applications import Starlette

from orchestrator.front.app import McpFront
from orchestrator.front.settings import FrontSettings
from orchestrator.identity.doors import Authenticators
from orchestrator.testing.doors import CLIENT_TOKEN, FakeTokens
from orchestrator.testing.inprocess_fleet import InProcessFleet, Progress, ToolFailed
from orchestrator.testing.serving import serving
from tasks.invocation import Call, Lane
from tasks.tool import ToolPolicy, ToolSpec

VERSION = "2026-07-28"
ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": VERSION,
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
}
TASKS: dict[str, Any] = {"extensions": {"io.modelcontextprotocol/tasks": {}}}
SETTINGS = FrontSettings(inline_window_s=0.05, watch_interval_s=0.01, keepalive_s=0.05)
"""Windows so short that a test of what comes after them need not wait."""


class Toolbox:
    """The tools of the fleet under test. `hold` blocks until `release` is set."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.calls: list[Call] = []
        self.stopped: list[str] = []

    def specs(self) -> list[ToolSpec]:
        """As a node offers them."""
        header = {"region": {"type": "string", "x-mcp-header": "Region"}}
        return [
            _spec("echo"),
            _spec("hold"),
            _spec("count"),
            _spec("fail"),
            _spec("break"),
            _spec("ask"),
            _spec("big"),
            _spec("header", inputSchema={"type": "object", "properties": header}),
            _spec("job", _meta={"mcpfleet/taskSupport": "required"}),
            _spec("agent", ToolPolicy(lane=Lane.AGENTS)),
        ]

    async def run(self, call: Call, on_progress: Progress) -> str:
        """One call."""
        self.calls.append(call)
        arguments = orjson.loads(call.arguments_json)
        match call.tool.partition(".")[2]:
            case "hold" | "job" | "agent":
                await self._hold(call)
            case "count":
                for step in range(3):
                    on_progress(step, 3, f"step {step}")
            case "fail":
                return orjson.dumps({"content": [{"type": "text", "text": "no"}], "isError": True}).decode()
            case "break":
                raise ToolFailed("connection_lost", "the server went away")
            case "ask":
                return _ask(orjson.loads(call.meta_json or "{}"))
            case "big":
                return f'{{"content":[],"structuredContent":{{"n":{2**70}}},"extra":{{"kept":true}}}}'
        return orjson.dumps({"content": [{"type": "text", "text": "ok"}], "structuredContent": arguments}).decode()

    async def _hold(self, call: Call) -> None:
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.stopped.append(call.tool)
            raise


class FrontUnderTest:
    """A front, its fleet and its tools."""

    def __init__(self, front: McpFront, fleet: InProcessFleet, tools: Toolbox, app: Starlette, url: str) -> None:
        self.front, self.fleet, self.tools, self.app, self.url = front, fleet, tools, app, url


@contextlib.asynccontextmanager
async def front_under_test(settings: FrontSettings = SETTINGS, **changes: Any) -> AsyncIterator[FrontUnderTest]:  # noqa: ANN401 - settings' fields
    """Serving on a loopback port."""
    tools = Toolbox()
    fleet = InProcessFleet(tools.specs(), tools.run)
    front = McpFront(fleet, Authenticators([FakeTokens()]), replace(settings, **changes))
    app = Starlette(routes=front.routes(), lifespan=lambda _: front.running())
    async with serving(app) as base:
        yield FrontUnderTest(front, fleet, tools, app, f"{base}/mcp")
    tools.release.set()


def modern(
    method: str,
    params: Mapping[str, Any] | None = None,
    *,
    capabilities: Mapping[str, Any] | None = None,
    number: int = 1,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Body and headers of a request of the 2026 era."""
    meta = {**ENVELOPE, **((params or {}).get("_meta") or {})}
    if capabilities is not None:
        meta["io.modelcontextprotocol/clientCapabilities"] = dict(capabilities)
    body = {"jsonrpc": "2.0", "id": number, "method": method, "params": {**(params or {}), "_meta": meta}}
    headers = {**legacy_headers(), "mcp-protocol-version": VERSION, "mcp-method": method}
    name = (params or {}).get("name") or (params or {}).get("taskId")
    return body, headers | ({"mcp-name": name} if name else {})


def legacy_headers(token: str = CLIENT_TOKEN) -> dict[str, str]:
    """Headers of a request of the handshake era."""
    return {
        "authorization": f"Bearer {token}",
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": "2025-11-25",
    }


def _spec(name: str, policy: ToolPolicy | None = None, **definition: Any) -> ToolSpec:  # noqa: ANN401 - of MCP's Tool
    given = {"name": name, "description": name, "inputSchema": {"type": "object"}, **definition}
    return ToolSpec(server="t", definition=given, policy=policy or ToolPolicy())


def _ask(carried: dict[str, Any]) -> str:
    """Two questions; says what was answered once both are, and what state came back."""
    answers = carried.get("inputResponses") or {}
    schema = {"type": "object", "properties": {"v": {"type": "string"}}, "required": ["v"]}
    question = {"method": "elicitation/create", "params": {"mode": "form", "message": "?", "requestedSchema": schema}}
    if not {"one", "two"} <= answers.keys():
        asked = {
            "resultType": "input_required",
            "inputRequests": {"one": question, "two": question},
            "requestState": "s1",
        }
        return orjson.dumps(asked).decode()
    said = f"{answers['one']['content']['v']} {answers['two']['content']['v']} {carried.get('requestState')}"
    return orjson.dumps({"content": [{"type": "text", "text": said}]}).decode()
