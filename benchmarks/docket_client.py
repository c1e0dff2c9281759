"""FastMCP's client: calls the tool as a background task and waits for its end, as its `call_tool` does."""

from __future__ import annotations

import asyncio
import os

import fastmcp_tasks  # noqa: F401 - importing it teaches the client about tasks
from fastmcp import Client

from benchmarks.load import MESSAGE, obey


async def main() -> None:
    """Obey orders over one open session."""
    async with Client(f"http://127.0.0.1:{os.environ['BENCH_PORT']}/mcp") as client:

        async def call() -> None:
            answer = await client.call_tool("echo", {"text": MESSAGE})
            assert answer.data == MESSAGE

        await obey(call)


if __name__ == "__main__":
    asyncio.run(main())
