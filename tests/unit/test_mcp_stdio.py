"""The stdio loop that both doors on stdin use."""

from __future__ import annotations

from typing import Any

import anyio
import mcp_types as types
import pytest
from mcp.server.lowlevel.server import Server
from mcp.shared.message import SessionMessage

from tasks.mcp_stdio import serve_streams

ENVELOPE = {
    "_meta": {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
}
HANDSHAKE = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}


async def _list_tools(_ctx: Any, _params: Any) -> types.ListToolsResult:
    return types.ListToolsResult(tools=[types.Tool(name="one", input_schema={"type": "object"})])


async def _talk(*requests: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The replies of a fresh server to `requests`, in order."""
    to_server, reads = anyio.create_memory_object_stream[Any](10)
    writes, from_server = anyio.create_memory_object_stream[Any](10)
    replies: list[dict[str, Any]] = []
    server: Server[Any] = Server("probe", version="1", on_list_tools=_list_tools)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(serve_streams, server, reads, writes)
            for number, (method, params) in enumerate(requests):
                request = types.JSONRPCRequest(jsonrpc="2.0", id=number, method=method, params=params)
                await to_server.send(SessionMessage(request))
                reply = await from_server.receive()
                replies.append(reply.message.model_dump(by_alias=True, exclude_none=True))
            to_server.close()
    return replies


async def test_probe_then_handshake_is_served() -> None:
    """A client that probes with server/discover and then sends initialize gets its session."""
    probe, handshake, listing = await _talk(
        ("server/discover", ENVELOPE), ("initialize", HANDSHAKE), ("tools/list", {})
    )
    assert probe["result"]["supportedVersions"] == ["2026-07-28"]
    assert handshake["result"]["protocolVersion"] == "2025-11-25"
    assert listing["result"]["tools"][0]["name"] == "one"


async def test_probe_then_modern_requests_are_served() -> None:
    """A client that probes and stays in the 2026 era is served in it."""
    replies = await _talk(("server/discover", ENVELOPE), ("server/discover", ENVELOPE), ("tools/list", ENVELOPE))
    assert [reply["result"]["resultType"] for reply in replies] == ["complete"] * 3


async def test_handshake_without_probe_is_served() -> None:
    """An old client that knows nothing of probes is served as ever."""
    handshake, listing = await _talk(("initialize", HANDSHAKE), ("tools/list", {}))
    assert handshake["result"]["serverInfo"]["name"] == "probe"
    assert "error" not in listing


@pytest.mark.parametrize("params", [{}, {"_meta": {}}])
async def test_probe_without_envelope_is_refused_and_does_not_decide_the_era(params: dict[str, Any]) -> None:
    """A malformed probe gets an error, and the handshake after it still works."""
    probe, handshake = await _talk(("server/discover", params), ("initialize", HANDSHAKE))
    assert probe["error"]["code"] in {-32601, -32602}
    assert "result" in handshake
