"""A node as one MCP server: any MCP client lists and calls its tools, over HTTP and stdio, in both eras."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS
from starlette.applications import Starlette

from worker.mcpserver import NodeMcp
from worker.testing.upstreams_kit import Kit, is_alive, noted, running, scripted, served, until

TOKEN = "node-token"


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """Where the scripted server writes down what it is told."""
    return tmp_path / "notes"


@asynccontextmanager
async def node(notes: Path, **limits: int) -> AsyncIterator[tuple[Kit, str]]:
    """A node with the scripted server and the probe; its MCP address."""
    numbers = count()
    async with running({"mcpServers": {"s": scripted(notes)}}) as kit:
        mcp = NodeMcp(kit.upstreams, name="node-1", version="1", new_id=lambda: str(next(numbers)), **limits)
        routes, life = mcp.http(token=TOKEN)
        async with life, served(Starlette(routes=list(routes))) as port:
            yield kit, f"http://127.0.0.1:{port}/mcp"


@asynccontextmanager
async def client(url: str, mode: str = "auto", token: str = TOKEN, host: str | None = None) -> AsyncIterator[Client]:
    """An MCP client that we did not write, at that address."""
    headers = {"Authorization": f"Bearer {token}"} | ({"Host": host} if host else {})
    async with (
        httpx2.AsyncClient(headers=headers, timeout=30) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as session,
    ):
        yield session


@pytest.mark.parametrize(("mode", "era"), [("auto", "2026-07-28"), ("legacy", "2025-11-25")])
async def test_both_eras_list_and_call(notes: Path, mode: str, era: str) -> None:
    """Tools stand under `server.tool`; a call carries arguments there and content, structure and progress back."""
    told: list[object] = []

    async def on_progress(*report: object) -> None:
        told.append(report)

    async with node(notes) as (_, url), client(url, mode) as session:
        assert session.protocol_version == era
        names = {tool.name for tool in (await session.list_tools()).tools}
        assert {"s.echo", "probe.echo", "probe.sleep"} <= names
        result = await session.call_tool("s.echo", {"a": None})
        assert result.structured_content["arguments"] == {"a": None}
        assert result.structured_content["meta"]["mcpfleet/invocation"].startswith("local-")
        failed = await session.call_tool("probe.fail", {"message": "as asked"})
        assert (failed.is_error, failed.content[0].text) == (True, "as asked")
        await session.call_tool("s.progress", progress_callback=on_progress)
        assert told == [(0, 3, "step 0"), (1, 3, "step 1"), (2, 3, "step 2")]


async def test_errors_are_told_apart(notes: Path) -> None:
    """An unknown tool is a protocol error; a server that failed is a tool error that the model can read."""
    async with node(notes) as (_, url), client(url) as session:
        with pytest.raises(MCPError, match=r"Unknown tool: s\.nothing") as caught:
            await session.call_tool("s.nothing")
        assert caught.value.code == INVALID_PARAMS
        died = await session.call_tool("s.die")
        assert died.is_error
        assert "[connection_lost]" in died.content[0].text


async def test_a_cancelled_call_reaches_the_tool(notes: Path) -> None:
    """A client that gives up stops the work on the node."""
    async with node(notes) as (_, url), client(url) as session:
        task = asyncio.create_task(session.call_tool("s.hang"))
        await until(lambda: noted(notes, "hangs"))
        task.cancel()
        await asyncio.wait({task})
        await until(lambda: noted(notes, "cancelled"))


async def test_direct_calls_have_a_bound(notes: Path) -> None:
    """Past the bound calls wait, past the waiting room they are refused with a sentence."""
    async with node(notes, calls_max=1, waiting_max=1) as (_, url), client(url) as session:
        hanging = asyncio.create_task(session.call_tool("s.hang"))
        await until(lambda: noted(notes, "hangs"))
        both = [asyncio.create_task(session.call_tool("probe.echo")) for _ in range(2)]
        done, waiting = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED, timeout=30)
        refused = done.pop().result()
        assert refused.is_error
        assert "[node_busy]" in refused.content[0].text
        hanging.cancel()
        assert not (await waiting.pop()).is_error


async def test_only_the_bearer_of_the_token_is_answered(notes: Path) -> None:
    """No token, another token, another host name (DNS rebinding): refused before any tool is seen."""
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    plain = {"Accept": "application/json, text/event-stream"}
    ours = plain | {"Authorization": f"Bearer {TOKEN}"}
    async with node(notes) as (_, url), httpx2.AsyncClient() as http:
        cases = (
            plain,
            plain | {"Authorization": "Bearer nope"},
            ours | {"Host": "evil.example"},
            ours | {"Origin": "http://evil.example"},
        )
        answers = [await http.post(url, json=body, headers=headers) for headers in cases]
        assert [answer.status_code for answer in answers] == [401, 401, 421, 403]
        assert "probe" not in "".join(answer.text for answer in answers)


async def test_many_tools_are_listed_in_pages(notes: Path) -> None:
    """A long list comes in pages that follow each other, and a wrong cursor is an error."""
    async with node(notes) as (kit, url), client(url) as session:
        spec = kit.upstreams.tools()[0]
        specs = tuple(spec.model_copy(update={"definition": spec.definition | {"name": f"t{n}"}}) for n in range(1200))
        kit.upstreams.tools = lambda: specs  # type: ignore[method-assign]
        kit.upstreams.version += 1
        names, cursor = [], None
        while True:
            page = await session.list_tools(cursor=cursor)
            names += [tool.name for tool in page.tools]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert len(set(names)) == 1200
        for wrong in ("x", "1200", "-1"):
            with pytest.raises(MCPError, match="Unknown cursor"):
                await session.list_tools(cursor=wrong)


ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def servers_file(notes: Path, tmp_path: Path) -> Path:
    """A servers file with the scripted server."""
    path = tmp_path / "servers.json"
    entry = scripted(notes) | {"env": {}}
    path.write_text(json.dumps({"mcpServers": {"s": entry}}))
    return path


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_servers_file_is_one_server_over_stdio(servers_file: Path, mode: str) -> None:
    """Without a fleet: the servers of a file, as one, to a client that starts us."""
    parameters = StdioServerParameters(
        command=sys.executable, args=["-m", "worker.cli", "mcp", "--servers", str(servers_file)], cwd=ROOT
    )
    async with Client(parameters, mode=mode) as session:
        assert "s.echo" in {tool.name for tool in (await session.list_tools()).tools}
        result = await session.call_tool("s.echo", {"a": 1})
        assert result.structured_content["arguments"] == {"a": 1}


async def test_stdio_takes_a_probe_and_then_the_handshake(servers_file: Path, notes: Path) -> None:
    """What Claude Code sends: server/discover, then initialize. And nothing is left when stdin ends."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "worker.cli", "mcp", "--servers", str(servers_file), stdin=pipe, stdout=pipe, cwd=ROOT
    )
    assert process.stdin is not None
    assert process.stdout is not None

    async def ask(number: int, method: str, params: dict[str, Any]) -> dict[str, Any]:
        line = json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        process.stdin.write(line.encode() + b"\n")
        answer: dict[str, Any] = json.loads(await asyncio.wait_for(process.stdout.readline(), 60))
        assert answer["id"] == number
        return answer

    envelope = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
    assert "supportedVersions" in (await ask(1, "server/discover", {"_meta": envelope}))["result"]
    assert (await ask(2, "initialize", hello))["result"]["protocolVersion"] == "2025-11-25"
    process.stdin.write(b'{"jsonrpc": "2.0", "method": "notifications/initialized"}\n')
    listed = (await ask(3, "tools/list", {}))["result"]["tools"]
    assert "s.echo" in {tool["name"] for tool in listed}
    process.stdin.close()
    assert await asyncio.wait_for(process.wait(), 60) == 0
    assert not is_alive(int(noted(notes, "pid")[0]))
