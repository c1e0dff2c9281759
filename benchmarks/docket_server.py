"""FastMCP with its tasks extension on Docket: front and worker in one process, as its documentation runs it.

Runs in the peers' environment (requirements/bench.txt). Docket's concurrency is raised from 10 to 64, above
the callers of the closed loop.
"""

from __future__ import annotations

import os

from fastmcp import FastMCP
from fastmcp_tasks import TasksExtension

server = FastMCP("bench")
server.add_extension(TasksExtension(url=os.environ["BENCH_REDIS_URL"], concurrency=64))


@server.tool(task=True)
async def echo(text: str) -> str:
    """Answer what was said."""
    return text


if __name__ == "__main__":
    server.run(
        transport="http", host="127.0.0.1", port=int(os.environ["BENCH_PORT"]), show_banner=False, log_level="warning"
    )
