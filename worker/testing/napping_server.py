"""A real MCP server of the SDK whose one tool takes as long as it is told to, for tests that stop the whole process.

    napping_server.py stdio
    napping_server.py http FILE [old]

Over HTTP it writes its port into FILE. `old` refuses the 2026 era, as a server of the handshake era does.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

import uvicorn
from mcp.server.mcpserver import MCPServer
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

SERVER = MCPServer("napping")


@SERVER.tool()
async def nap(seconds: float) -> str:
    """Sleep, and answer everything else meanwhile."""
    await asyncio.sleep(seconds)
    return "rested"


class Old:
    """In front of an app: the handshake era only."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        headers = dict(scope.get("headers", []))
        if headers.get(b"mcp-protocol-version", b"").startswith(b"2026"):
            await PlainTextResponse("unsupported protocol version", status_code=400)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def main() -> None:
    """Until it is ended."""
    if sys.argv[1] == "stdio":
        SERVER.run("stdio")
        return
    app: ASGIApp = SERVER.streamable_http_app()
    listener = socket.create_server(("127.0.0.1", 0))
    Path(sys.argv[2]).write_text(str(listener.getsockname()[1]))
    server = uvicorn.Server(uvicorn.Config(Old(app) if "old" in sys.argv else app, log_level="error"))
    server.run(sockets=[listener])


if __name__ == "__main__":
    main()
