"""The fleet's clients: the Python client over HTTP, and an MCP client over Streamable HTTP. One session, kept open."""

from __future__ import annotations

import asyncio
import json
import os
import sys

from benchmarks.load import MESSAGE, obey

URL, TOKEN = "BENCH_FLEET_URL", "BENCH_FLEET_TOKEN"


async def over_http(tool: str, arguments: dict[str, object]) -> None:
    """Obey orders with `AsyncFleet.call`."""
    from tasks.client import AsyncFleet

    async with AsyncFleet(os.environ[URL], os.environ[TOKEN]) as fleet:

        async def call() -> None:
            answer = await fleet.call(tool, arguments)
            assert answer.text

        await obey(call)


async def over_mcp(tool: str, arguments: dict[str, object]) -> None:
    """Obey orders with the official SDK's client."""
    import httpx2
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client

    headers = {"Authorization": f"Bearer {os.environ[TOKEN]}"}
    limits = httpx2.Limits(max_connections=256, max_keepalive_connections=256)
    async with (
        httpx2.AsyncClient(headers=headers, limits=limits, timeout=60.0) as http,
        Client(streamable_http_client(f"{os.environ[URL]}/mcp", http_client=http)) as client,
    ):

        async def call() -> None:
            answer = await client.call_tool(tool, arguments)
            assert not answer.is_error

        await obey(call)


if __name__ == "__main__":
    door, named, given = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    doors = {"http": over_http, "mcp": over_mcp}
    asyncio.run(doors[door](named, given | {"text": MESSAGE} if named == "probe.echo" else given))
