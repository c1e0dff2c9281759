"""An MCP server whose tools need grants, for tests: it answers, and keeps what it was told."""

from __future__ import annotations

from typing import Any

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server

from tasks.tool import ToolPolicy

Context = ServerRequestContext[Any, Any]
READS, WRITES, OPEN = "sap.read_orders", "sap.write_orders", "sap.ping"
POLICIES = {
    READS: ToolPolicy(grant="SAP_API", grant_scope=("orders:read",)),
    WRITES: ToolPolicy(grant="SAP_API", grant_scope=("orders:write",)),
    "sap.export": ToolPolicy(grant="DATA_EXPORT"),
}


def sap_server(seen: list[dict[str, Any]]) -> Server[Any]:
    """`seen` gets the `_meta` of each call."""
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
            ]
        )

    async def called(ctx: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        seen.append({"tool": params.name, **((ctx.params or {}).get("_meta") or {})})
        return types.CallToolResult(content=[types.TextContent(text="ok")])

    return Server("sap", on_list_tools=listed, on_call_tool=called)
