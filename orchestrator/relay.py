"""A replica that does not lead passes connections on to the one that does, byte by byte.

Below HTTP, so that every door behaves as at the leader itself, streams and sessions included. Whose connection it is
is said first (`orchestrator/introduction.py`). A
connection waits while nobody leads; one whose leader was replaced is cut, and its caller asks again.
Owns connections; refuses to read what they say.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

import structlog

from orchestrator.introduction import MAGIC, NONCE_BYTES, Introductions

log = structlog.get_logger("mcpfleet.relay")
CONNECTIONS_MAX = 1024
"""Passed on or held at once; each costs two sockets."""
CONNECT_S = 2.0
INTRODUCED_S = 5.0
"""To the leader's nonce. A frozen one has none, and is replaced within its lease: then the next is asked."""
TRY_EVERY_S = 0.1
CHUNK_BYTES = 64 * 1024
DEAD_AFTER_MS = 10_000
"""A leader whose machine vanished acknowledges nothing: its connections break after this long."""
_DETAIL = (
    b'{"type":"urn:mcpfleet:error:not_leading","title":"Service Unavailable","status":503,"code":"not_leading",'
    b'"detail":"no orchestrator leads at the moment; ask again","errors":[],"fields":{}}'
)
UNAVAILABLE = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\nrefresh: 2\r\n"
    b"connection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(_DETAIL), _DETAIL)
)
"""With `refresh` a person's browser asks again by itself; programs read `retry-after`."""
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Relay:
    """Takes connections on a socket until its own process leads."""

    def __init__(self, introductions: Introductions, *, patience_s: float) -> None:
        self.introductions, self._patience_s = introductions, patience_s
        self._leader: str | None = None
        self._moved = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._passing: set[asyncio.Task[None]] = set()

    async def open(self, listening: socket.socket) -> None:
        """Accept on a duplicate: whoever owns the socket accepts on it later."""
        self._server = await asyncio.start_server(self._accept, sock=listening.dup())

    def led_by(self, address: str | None) -> None:
        """Who leads now, as HOST:PORT."""
        if address != self._leader:
            self._leader = address
            moved, self._moved = self._moved, asyncio.Event()
            moved.set()

    def close_door(self) -> None:
        """Accept no more; what was accepted goes on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def drained(self, within_s: float) -> None:
        """Until every connection ended, or the time is over; what is left is cut."""
        if self._passing:
            await asyncio.wait(self._passing, timeout=within_s)
        for task in self._passing:
            task.cancel()

    async def reaches_leader(self) -> None:
        """Until the leader takes connections."""
        while (streams := await self._connected(None)) is None:
            await self._moves_or(TRY_EVERY_S)
        streams[1].close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._passing.add(task)
        task.add_done_callback(self._passing.discard)
        try:
            await self._serve((reader, writer))
        except OSError as error:
            log.debug("connection_broke", error=str(error))
        finally:
            writer.close()

    async def _serve(self, client: Streams) -> None:
        leader, moved = None, self._moved
        peer = client[1].get_extra_info("peername")
        if len(self._passing) <= CONNECTIONS_MAX:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._patience_s):
                    while (leader := await self._connected(peer)) is None:
                        await self._moves_or(TRY_EVERY_S)
                        moved = self._moved
        if leader is None:
            client[1].write(UNAVAILABLE)
            await client[1].drain()
            return
        try:
            await self._pass(client, leader, moved)
        finally:
            leader[1].close()

    async def _pass(self, client: Streams, leader: Streams, moved: asyncio.Event) -> None:
        """Both ways, until the leader is done with it or somebody else leads."""
        asking = asyncio.create_task(_copy(client[0], leader[1], is_last=False))
        answering = asyncio.create_task(_copy(leader[0], client[1], is_last=True))
        leaving = asyncio.create_task(self._leads_elsewhere(moved))
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (asking, answering, leaving):
                task.cancel()
            await asyncio.gather(asking, answering, leaving, return_exceptions=True)

    async def _leads_elsewhere(self, moved: asyncio.Event) -> None:
        """Not while nobody is known to lead: the old leader may be answering its last requests."""
        await moved.wait()
        while self._leader is None:
            await self._moved.wait()

    async def _connected(self, peer: object) -> Streams | None:
        if self._leader is None:
            return None
        host, _, port = self._leader.rpartition(":")
        try:
            async with asyncio.timeout(CONNECT_S):
                streams = await asyncio.open_connection(host.strip("[]"), int(port))
        except (OSError, TimeoutError):
            return None
        try:
            _notice_death(streams[1].get_extra_info("socket"))
            await self._introduce(peer, streams)
        except (OSError, EOFError):
            streams[1].close()
            return None
        except BaseException:
            streams[1].close()
            raise
        return streams

    async def _introduce(self, peer: object, leader: Streams) -> None:
        """Raises TimeoutError, EOFError, OSError: this is no leader of ours, or it has no time."""
        async with asyncio.timeout(INTRODUCED_S):
            leader[1].write(MAGIC)
            if await leader[0].readexactly(len(MAGIC)) != MAGIC:
                raise ConnectionRefusedError("whoever leads there is asked nothing: it does not know introductions")
            nonce = await leader[0].readexactly(NONCE_BYTES)
            leader[1].write(self.introductions.make(peer, nonce))
            await leader[1].drain()

    async def _moves_or(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._moved.wait()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_last: bool) -> None:
    while chunk := await reader.read(CHUNK_BYTES):
        writer.write(chunk)
        await writer.drain()
    if not is_last:
        writer.write_eof()


def _notice_death(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_AFTER_MS)
