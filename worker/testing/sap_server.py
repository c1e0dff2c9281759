"""An MCP server whose tools need grants, for tests: it answers, and keeps what it was told."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server

from tasks.tool import ToolPolicy

Context = ServerRequestContext[Any, Any]
READS, WRITES, OPEN = "sap.read_orders", "sap.write_orders", "sap.ping"
CLOSES = "sap.close_books"
"""Runs until its `books` are closed, or it is stopped; then it says so in `seen`."""
POLICIES = {
    CLOSES: ToolPolicy(grant="SAP_API", grant_scope=("orders:read",)),
    READS: ToolPolicy(grant="SAP_API", grant_scope=("orders:read",)),
    WRITES: ToolPolicy(grant="SAP_API", grant_scope=("orders:write",)),
    "sap.export": ToolPolicy(grant="DATA_EXPORT"),
}


@dataclass
class Books:
    """Of `close_books`: a test waits for its start, and closes them."""

    opened: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    closed: asyncio.Event = field(default_factory=asyncio.Event)


def sap_server(seen: list[dict[str, Any]], books: Books | None = None) -> Server[Any]:
    """`seen` gets the `_meta` of each call."""
    books = books or Books()
    reads = types.ToolAnnotations(read_only_hint=True)

    async def listed(
        _ctx: ServerRequestContext[Any, Any], _params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        return types.ListToolsResult(
            tools=[
                types.Tool(name="read_orders", input_schema={"type": "object"}, annotations=reads),
                types.Tool(name="write_orders", input_schema={"type": "object"}),
                types.Tool(name="export", input_schema={"type": "object"}),
                types.Tool(name="ping", input_schema={"type": "object"}),
                types.Tool(name="close_books", input_schema={"type": "object"}),
            ]
        )

    async def called(ctx: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        seen.append({"tool": params.name, **((ctx.params or {}).get("_meta") or {})})
        if params.name == "close_books":
            books.opened.release()
            try:
                await books.closed.wait()
            except asyncio.CancelledError:
                seen.append({"stopped": params.name})
                raise
        return types.CallToolResult(content=[types.TextContent(text="ok")])

    return Server("sap", on_list_tools=listed, on_call_tool=called)
