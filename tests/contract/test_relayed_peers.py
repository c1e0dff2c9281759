"""Who is at the other end of a connection that a replica passes on: said by replicas alone, with TLS and without."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import uvicorn
import uvloop
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from orchestrator.doors import Doors
from orchestrator.identity.ca import Authority
from orchestrator.introduction import MAGIC, NONCE_BYTES, Introductions, PassedOn
from orchestrator.patience import PatientProtocol
from orchestrator.relay import Relay
from orchestrator.tls import CertifiedHttp, own_context
from tasks.clock import SystemClock

WITHIN_S = 60.0
SECRET = b"of the fleet, " * 3
FAR = ("192.0.2.7", 4711)
ASK = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _says_client(scope: Scope, _receive: Receive, send: Send) -> None:
    client = scope["client"]
    body = json.dumps(client and client[0]).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


class Leader:
    """The real doors in front of the real HTTP protocol, and clients of theirs."""

    def __init__(self, *, is_tls: bool) -> None:
        self.introductions = Introductions(SECRET)
        authority = Authority(SECRET, SystemClock())
        self._tls = own_context(authority, ["localhost"]) if is_tls else None
        self._client_tls = ssl.create_default_context(cadata=authority.roots_pem) if is_tls else None
        self.config = uvicorn.Config(_says_client, log_config=None, lifespan="off", proxy_headers=False)
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listening.getsockname()[1]}"

    @asynccontextmanager
    async def open(self, within_s: float = WITHIN_S) -> AsyncIterator[None]:
        """Until the block ends."""
        self.config.load()
        doors = Doors(self.listening, self._made, self.introductions, tls=self._tls, within_s=within_s)
        doors.open()
        try:
            yield
        finally:
            doors.close()
            self.listening.close()

    def _made(self, passed_on: PassedOn | None) -> PatientProtocol:
        kind = CertifiedHttp if self._tls else PatientProtocol
        protocol = kind(config=self.config, server_state=ServerState(), app_state={})
        protocol.passed_on = passed_on
        return protocol

    async def dial(self, *introduced: tuple[Introductions, object], address: str = "") -> Streams:
        """A connection that was passed on as these say, the nearest replica first."""
        host, port = (address or self.address).split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        for introductions, peer in introduced:
            writer.write(MAGIC)
            assert await reader.readexactly(len(MAGIC)) == MAGIC
            frame = introductions.make(peer, await reader.readexactly(NONCE_BYTES))
            writer.write(frame[:20])
            await writer.drain()
            writer.write(frame[20:])
        return reader, writer

    async def seen(self, streams: Streams) -> str | None:
        """The peer that the application is told; "cut" for no answer at all."""
        reader, writer = streams
        async with asyncio.timeout(WITHIN_S):
            try:
                if self._client_tls is not None:
                    await writer.start_tls(self._client_tls, server_hostname="localhost")
                writer.write(ASK)
                said = await reader.read()
            except OSError:
                said = b""
        writer.close()
        return json.loads(said.rpartition(b"\r\n\r\n")[2]) if said else "cut"


@asynccontextmanager
async def relayed(introductions: Introductions, leader: str | None) -> AsyncIterator[tuple[Relay, str]]:
    """A replica that does not lead; its address."""
    relay = Relay(introductions, patience_s=WITHIN_S)
    relay.led_by(leader)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        await relay.open(listening)
        try:
            yield relay, f"127.0.0.1:{listening.getsockname()[1]}"
        finally:
            relay.close_door()
            await relay.drained(0.0)


Case = Callable[[Leader], Awaitable[None]]


def _run(case: Case, *, is_tls: bool) -> None:
    async def whole() -> None:
        leader = Leader(is_tls=is_tls)
        async with leader.open():
            await case(leader)

    uvloop.run(whole())


BOTH = pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])


@BOTH
def test_a_replica_says_who_came_to_it(is_tls: bool) -> None:
    """Through two of them the one that he came to says it; nobody else is asked."""
    other = Introductions(SECRET)

    async def case(leader: Leader) -> None:
        assert await leader.seen(await leader.dial()) == "127.0.0.1"
        assert await leader.seen(await leader.dial((other, FAR))) == FAR[0]
        assert await leader.seen(await leader.dial((other, ("2001:db8::7", 1, 0, 0)))) == "2001:db8::7"
        assert await leader.seen(await leader.dial((other, ("::ffff:192.0.2.8", 1, 0, 0)))) == "192.0.2.8"
        assert await leader.seen(await leader.dial((leader.introductions, ("127.0.0.1", 1)), (other, FAR))) == FAR[0]

    _run(case, is_tls=is_tls)


@BOTH
def test_loopback_of_another_machine_is_nobody_we_know(is_tls: bool) -> None:
    """Only what this very process accepted on loopback is local."""
    own, other = ("127.0.0.1", 1), Introductions(SECRET)

    async def case(leader: Leader) -> None:
        assert await leader.seen(await leader.dial((leader.introductions, own))) == "127.0.0.1"
        for peer in (own, ("::1", 1, 0, 0), ("::ffff:127.0.0.1", 1, 0, 0), "", None, ("/a/path", 1)):
            assert await leader.seen(await leader.dial((other, peer))) is None
        assert await leader.seen(await leader.dial((leader.introductions, own), (other, own))) is None

    _run(case, is_tls=is_tls)


@BOTH
def test_a_real_relay_introduces_before_anything_else(is_tls: bool) -> None:
    """The one that this process held until it led, and another process's; one behind the other too."""

    async def case(leader: Leader) -> None:
        async with AsyncExitStack() as stack:
            _, held = await stack.enter_async_context(relayed(leader.introductions, leader.address))
            _, standby = await stack.enter_async_context(relayed(Introductions(SECRET), leader.address))
            _, behind = await stack.enter_async_context(relayed(Introductions(SECRET), held))
            assert await leader.seen(await leader.dial(address=held)) == "127.0.0.1"
            assert await leader.seen(await leader.dial(address=standby)) is None
            assert await leader.seen(await leader.dial(address=behind)) is None

    _run(case, is_tls=is_tls)


@BOTH
def test_nobody_else_is_believed(is_tls: bool) -> None:
    """Another secret, an introduction heard on a wire, half of one, and one without end."""
    other, stranger = Introductions(SECRET), Introductions(b"another fleet's")

    async def case(leader: Leader) -> None:
        assert await leader.seen(await leader.dial((stranger, FAR))) == "cut"
        heard = other.make(FAR, bytes(NONCE_BYTES))
        reader, writer = await leader.dial()
        writer.write(MAGIC)
        await reader.readexactly(len(MAGIC) + NONCE_BYTES)
        writer.write(heard)
        assert await leader.seen((reader, writer)) == "cut"
        reader, writer = await leader.dial()
        writer.write(b"\0" + bytes(len(MAGIC)))
        assert await leader.seen((reader, writer)) == "cut"
        reader, writer = await leader.dial(*[(other, FAR)] * 4)
        assert await leader.seen((reader, writer)) == "cut"
        assert await leader.seen(await leader.dial((other, FAR))) == FAR[0]

    _run(case, is_tls=is_tls)


@pytest.mark.parametrize("said", [b"", MAGIC, MAGIC[:3]])
def test_who_says_nothing_is_gone(said: bytes) -> None:
    """In the time that headers have, told in HTTP where that can be read."""

    async def whole() -> None:
        leader = Leader(is_tls=False)
        async with leader.open(within_s=1.0):
            reader, writer = await leader.dial()
            writer.write(said)
            async with asyncio.timeout(WITHIN_S):
                answer = await reader.read()
            assert b"HTTP/1.1 408 " in answer
            writer.close()

    uvloop.run(whole())
