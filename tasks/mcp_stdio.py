"""An MCP server on stdin and stdout, for both protocol eras.

Owns one thing that the SDK's stdio loop refuses: a client may *probe* with `server/discover` and
then fall back to the `initialize` handshake, as Claude Code does. The SDK lets the first request
decide the era for good and answers that `initialize` with -32022. Here probes that come before any
other request are answered one by one and do not decide; the first other request does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

import anyio
from mcp.server.lowlevel.server import Server
from mcp.server.models import InitializationOptions
from mcp.server.runner import serve_dual_era_loop
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCRequest

PROBE = "server/discover"

Frame = SessionMessage | Exception


class Reads(Protocol):
    """Where the client's frames come from."""

    def __aiter__(self) -> AsyncIterator[Frame]: ...

    async def aclose(self) -> None:
        """No more is wanted."""
        ...


class Writes(Protocol):
    """Where ours go."""

    async def send(self, item: SessionMessage, /) -> None:
        """Send one frame."""
        ...

    async def aclose(self) -> None:
        """No more will come."""
        ...


async def serve_stdio(server: Server[Any], *, options: InitializationOptions | None = None) -> None:
    """Serve `server` on this process's stdin and stdout until stdin ends.

    Args:
        server: a lowlevel MCP server; its lifespan is entered here.
        options: what `initialize` answers; made from the server when absent.
    """
    async with stdio_server() as (reads, writes):
        await serve_streams(server, reads, writes, options=options)


async def serve_streams(
    server: Server[Any], reads: Reads, writes: Writes, *, options: InitializationOptions | None = None
) -> None:
    """As `serve_stdio`, over any pair of streams."""
    async with server.lifespan(server) as state, _after_probes(server, reads, writes, state) as rest:
        await serve_dual_era_loop(
            server,
            rest,
            writes,  # type: ignore[arg-type]  # the SDK asks for async-context methods that it never uses here
            lifespan_state=state,
            init_options=options or server.create_initialization_options(),
        )


@asynccontextmanager
async def _after_probes(server: Server[Any], reads: Reads, writes: Writes, state: object) -> AsyncIterator[Any]:
    """The frames of `reads` without the probes that lead it; those are answered meanwhile."""
    forward, rest = anyio.create_memory_object_stream[Frame]()

    async def pump() -> None:
        is_opening = True
        async with forward:
            async for frame in reads:
                request = frame.message if isinstance(frame, SessionMessage) else None
                if is_opening and isinstance(request, JSONRPCRequest):
                    if request.method == PROBE:
                        await writes.send(await _answer(server, frame, state))
                        continue
                    is_opening = False
                await forward.send(frame)

    async with anyio.create_task_group() as group:
        group.start_soon(pump)
        yield rest
        group.cancel_scope.cancel()


async def _answer(server: Server[Any], probe: Frame, state: object) -> SessionMessage:
    """What the SDK's own loop says to one probe on a connection of its own."""
    to_loop, loop_reads = anyio.create_memory_object_stream[Frame](1)
    loop_writes, from_loop = anyio.create_memory_object_stream[SessionMessage](1)
    async with to_loop, from_loop, anyio.create_task_group() as group:
        group.start_soon(_loop, server, loop_reads, loop_writes, state)
        await to_loop.send(probe)
        reply = await from_loop.receive()
        group.cancel_scope.cancel()
    return reply


async def _loop(server: Server[Any], reads: Any, writes: Any, state: object) -> None:  # noqa: ANN401 - SDK streams
    await serve_dual_era_loop(server, reads, writes, lifespan_state=state)
