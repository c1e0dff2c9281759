"""A connection that is reset while nobody reads from it, on the event loop that nodes and orchestrator use."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

import pytest
import uvloop
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from tasks.redis_reset import told_of_resets

WITHIN_S = 20.0
RESET_AT_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER of no length. Source: socket(7)."""


class Peer:
    """Says OK to everything, and resets its connections when told to."""

    def __init__(self) -> None:
        self._transports: list[asyncio.WriteTransport] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self._transports.append(writer.transport)
        while await reader.read(4096):
            writer.write(b"+OK\r\n")

    def reset(self) -> None:
        """As a machine that lost its state."""
        for transport in self._transports:
            held: socket.socket = transport.get_extra_info("socket")
            held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
            transport.abort()
        self._transports.clear()


async def _hears_of_a_reset() -> None:
    peer = Peer()
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    redis = told_of_resets(Redis(port=port, single_connection_client=True, retry=Retry(NoBackoff(), 0), protocol=2))
    async with server, redis, asyncio.timeout(WITHIN_S):
        assert await redis.execute_command("SET", "k", "v")
        writer = redis.connection._writer
        peer.reset()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        with pytest.raises(RedisConnectionError):
            await redis.execute_command("SET", "k", "v")
        assert await redis.execute_command("SET", "k", "v")


@pytest.mark.parametrize("loop", [uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def test_a_reset_is_an_error_that_callers_know(loop: type[asyncio.AbstractEventLoop]) -> None:
    """Every caller waits and goes on after redis-py's errors; any other would end a node, and did."""
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(_hears_of_a_reset())
