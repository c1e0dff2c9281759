"""The MCP door of a real fleet: both eras over HTTP, and over stdio as Claude Code speaks it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import mcp_types as types
import orjson
import pytest
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from orchestrator.testing.waiting import until

if TYPE_CHECKING:
    from collections.abc import Mapping

WITHIN_S = 60.0
ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
HANDSHAKE = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "claude-code", "version": "2"}}


@contextlib.asynccontextmanager
async def over_http(fleet: Any, mode: str, **more: Any) -> AsyncIterator[Client]:
    """A client on Streamable HTTP."""
    async with (
        httpx2.AsyncClient(headers={"authorization": f"Bearer {fleet.token}"}, timeout=WITHIN_S) as http,
        Client(streamable_http_client(f"{fleet.url}/mcp", http_client=http), mode=mode, **more) as client,
    ):
        yield client


def command(fleet: Any) -> StdioServerParameters:
    """`mcpfleet mcp`, which finds the fleet by its state directory."""
    words = ["-m", "orchestrator.cli.main", "mcp"]
    return StdioServerParameters(command=sys.executable, args=words, env=dict(fleet.environ))


@contextlib.asynccontextmanager
async def over_stdio(fleet: Any, mode: str, **more: Any) -> AsyncIterator[Client]:
    """A client on the pipes of `mcpfleet mcp`."""
    async with Client(command(fleet), mode=mode, **more) as client:
        yield client


DOORS = {
    "http-2026": (over_http, "2026-07-28"),
    "http-handshake": (over_http, "legacy"),
    "stdio-2026": (over_stdio, "2026-07-28"),
    "stdio-handshake": (over_stdio, "legacy"),
    "stdio-auto": (over_stdio, "auto"),
}


def history(fleet: Any, invocation: str) -> Mapping[str, Any]:
    """The ledger's view of an Invocation."""
    headers = {"authorization": f"Bearer {fleet.token}"}
    return dict(httpx.get(f"{fleet.url}/v1/invocations/{invocation}", headers=headers, timeout=WITHIN_S).json())


@pytest.mark.parametrize("door", DOORS)
async def test_a_real_tool_is_listed_and_answers(fleet: Any, door: str) -> None:
    """A server we did not write, through every form of the door: its own definition and its own content."""
    connect, mode = DOORS[door]
    async with asyncio.timeout(WITHIN_S), connect(fleet, mode) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert tools["time.get_current_time"].input_schema["required"] == ["timezone"]
        assert {"fleet.submit", "fleet.get", "fleet.cancel", "fleet.why"} <= tools.keys()
        answer = await client.call_tool("time.get_current_time", {"timezone": "Europe/Berlin"})
        assert orjson.loads(answer.content[0].text)["timezone"] == "Europe/Berlin"  # type: ignore[union-attr]
        assert not answer.is_error
        seen = history(fleet, answer.meta["mcpfleet/invocation"])  # type: ignore[index]
        assert [attempt["ending"] for attempt in seen["attempts"]] == ["succeeded"]


@pytest.mark.parametrize("door", ["http-2026", "http-handshake", "stdio-2026"])
async def test_progress_passes_from_the_node_to_the_client(fleet: Any, door: str) -> None:
    """What the tool reports while it runs reaches whoever asked for it, in order."""
    connect, mode = DOORS[door]
    heard: list[float] = []

    async def on_progress(progress: float, _total: float | None, _message: str | None) -> None:
        heard.append(progress)

    async with asyncio.timeout(WITHIN_S), connect(fleet, mode) as client:
        await client.call_tool("probe.sleep", {"seconds": 1.2, "steps": 4}, progress_callback=on_progress)
    assert heard == sorted(heard)
    assert heard[-1] == 4


@pytest.mark.parametrize("door", ["http-2026", "http-handshake", "stdio-2026", "stdio-handshake"])
async def test_a_cancelled_request_cancels_the_invocation(fleet: Any, door: str) -> None:
    """The tool stops, and the ledger says cancelled."""
    connect, mode = DOORS[door]
    project = f"cancel-{door}"
    async with asyncio.timeout(WITHIN_S), connect(fleet, mode) as client:
        meta: Any = {"mcpfleet/project": project}
        calling = asyncio.create_task(client.call_tool("probe.sleep", {"seconds": 50}, meta=meta))
        found = await _only(fleet, project, "running")
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)
        assert (await _only(fleet, project, "cancelled"))["id"] == found["id"]


async def _only(fleet: Any, project: str, state: str) -> Mapping[str, Any]:
    """The one Invocation of a project, once it has this state."""
    headers = {"authorization": f"Bearer {fleet.token}"}
    async with httpx.AsyncClient(base_url=fleet.url, headers=headers, timeout=WITHIN_S) as http:

        async def found() -> dict[str, Any] | None:
            items = (await http.get("/v1/invocations", params={"project": project})).json()["items"]
            return dict(items[0]) if [item["state"] for item in items] == [state] else None

        return await until(found) or {}


@pytest.mark.parametrize("door", ["http-2026", "http-handshake"])
async def test_what_is_wrong_is_said_to_whoever_can_mend_it(fleet: Any, door: str) -> None:
    """A tool's isError and wrong arguments go to the model; an unknown tool is a protocol error."""
    connect, mode = DOORS[door]
    async with asyncio.timeout(WITHIN_S), connect(fleet, mode) as client:
        said = await client.call_tool("probe.fail", {"message": "as asked"})
        assert (said.is_error, said.content[0].text) == (True, "as asked")  # type: ignore[union-attr]
        wrong = await client.call_tool("probe.sleep", {"seconds": "long"})
        assert wrong.is_error
        assert "seconds" in wrong.content[0].text  # type: ignore[union-attr]
        with pytest.raises(MCPError) as unknown:
            await client.call_tool("probe.ecko", {})
        assert unknown.value.code == types.INVALID_PARAMS
        assert "probe.echo" in unknown.value.message


async def test_requirements_in_meta_place_the_call(fleet: Any) -> None:
    """Project and capability come in `_meta`, and the ledger has them."""
    async with asyncio.timeout(WITHIN_S), over_http(fleet, "2026-07-28") as client:
        meta: Any = {"mcpfleet/project": "by-meta", "mcpfleet/requires": ["build"]}
        answer = await client.call_tool("probe.pid", {}, meta=meta)
        seen = history(fleet, answer.meta["mcpfleet/invocation"])  # type: ignore[index]
        assert (seen["project"], seen["attempts"][0]["node"]) == ("by-meta", "builders-1")
        caused: Any = {"mcpfleet/parent": seen["id"]}
        child = await client.call_tool("probe.pid", {}, meta=caused)
        seen_child = history(fleet, child.meta["mcpfleet/invocation"])  # type: ignore[index]
        assert (seen_child["parent"], seen_child["depth"]) == (seen["id"], 1)


async def test_a_long_call_becomes_a_task_and_ends_as_one(fleet: Any) -> None:
    """SEP-2663 over the real ledger: created, asked for until it is done, its result inlined."""
    capabilities = {"extensions": {"io.modelcontextprotocol/tasks": {}}}
    async with asyncio.timeout(WITHIN_S), httpx.AsyncClient(timeout=WITHIN_S) as http:

        async def ask(method: str, params: dict[str, Any], name: str) -> dict[str, Any]:
            meta = {**ENVELOPE, "io.modelcontextprotocol/clientCapabilities": capabilities}
            headers = {
                "authorization": f"Bearer {fleet.token}",
                "accept": "application/json, text/event-stream",
                "mcp-protocol-version": "2026-07-28",
                "mcp-method": method,
                "mcp-name": name,
            }
            body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}
            return dict((await http.post(f"{fleet.url}/mcp", json=body, headers=headers)).json()["result"])

        arguments = {"seconds": 2.5, "steps": 2}
        task = await ask("tools/call", {"name": "probe.sleep", "arguments": arguments}, "probe.sleep")
        assert (task["resultType"], task["status"]) == ("task", "working")

        async def ended() -> dict[str, Any] | None:
            now = await ask("tasks/get", {"taskId": task["taskId"]}, task["taskId"])
            return None if now["status"] == "working" else now

        now = await until(ended) or {}
        assert (now["status"], now["result"]["structuredContent"]) == ("completed", {"slept_s": 2.5})
        assert history(fleet, task["taskId"])["state"] == "succeeded"


async def test_claude_codes_opening_is_served_on_stdio(fleet: Any) -> None:
    """A `server/discover` probe, then `initialize`, then calls: all answered, on one pipe."""
    parameters = command(fleet)
    process = await asyncio.create_subprocess_exec(
        parameters.command,
        *parameters.args,
        env=parameters.env,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None

    async def ask(number: int, method: str, params: dict[str, Any]) -> dict[str, Any]:
        frame = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        process.stdin.write(orjson.dumps(frame) + b"\n")  # type: ignore[union-attr]
        return dict(orjson.loads(await process.stdout.readline()))  # type: ignore[union-attr]

    async with asyncio.timeout(WITHIN_S):
        assert "2026-07-28" in (await ask(1, "server/discover", {"_meta": ENVELOPE}))["result"]["supportedVersions"]
        assert (await ask(2, "initialize", HANDSHAKE))["result"]["serverInfo"]["name"] == "mcpfleet"
        process.stdin.write(b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n')
        assert (await ask(3, "tools/call", {"name": "probe.echo", "arguments": {"a": 1}}))["result"][
            "structuredContent"
        ] == {"a": 1}
        process.stdin.close()
        assert await process.wait() == 0
