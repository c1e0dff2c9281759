"""A replica that does not lead: its connections end up at the one that does, or are told why not."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from orchestrator import relay as module
from orchestrator.introduction import FRAME_BYTES, MAGIC, NONCE_BYTES, Introductions
from orchestrator.relay import Relay

WITHIN_S = 20.0
BIG = b"x" * 1_000_000
FLEET = Introductions(b"a secret of the fleet")
Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def leader(answer: bytes) -> AsyncIterator[str]:
    """Answers every line with `answer`, then with the line; its address."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(len(MAGIC)) == MAGIC
        nonce = bytes(NONCE_BYTES)
        writer.write(MAGIC + nonce)
        FLEET.read(await reader.readexactly(FRAME_BYTES), nonce)
        while line := await reader.readline():
            writer.write(answer + line)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=2 * len(BIG))
    host, port = server.sockets[0].getsockname()[:2]
    yield f"{host}:{port}"
    server.close()


@pytest.fixture
async def door() -> AsyncIterator[Callable[[Relay], Awaitable[Client]]]:
    """Opens a relay and a connection to it."""
    relays: list[Relay] = []
    writers: list[asyncio.StreamWriter] = []
    listening = socket.create_server(("127.0.0.1", 0))

    async def connect(relay: Relay) -> Client:
        if relay not in relays:
            await relay.open(listening)
            relays.append(relay)
        client = await asyncio.open_connection(*listening.getsockname()[:2], limit=4 * len(BIG))
        writers.append(client[1])
        return client

    yield connect
    for writer in writers:
        writer.close()
    for relay in relays:
        relay.close_door()
        await relay.drained(0.0)
    listening.close()


async def _said(client: Client, line: bytes = b"hello\n") -> bytes:
    client[1].write(line)
    await client[1].drain()
    async with asyncio.timeout(WITHIN_S):
        return await client[0].readline()


Door = Callable[[Relay], Awaitable[Client]]


async def test_what_is_said_here_is_answered_by_the_leader(door: Door) -> None:
    """More than once on one connection, and however much it is."""
    relay = Relay(FLEET, patience_s=WITHIN_S)
    async with leader(b"one: ") as address:
        relay.led_by(address)
        client = await door(relay)
        assert await _said(client) == b"one: hello\n"
        assert await _said(client, BIG + b"\n") == b"one: " + BIG + b"\n"


async def test_a_connection_waits_for_a_leader(door: Door) -> None:
    """A restart or a failover is a pause, not an error."""
    relay = Relay(FLEET, patience_s=WITHIN_S)
    client = await door(relay)
    asking = asyncio.create_task(_said(client))
    relay.led_by("127.0.0.1:1")  # nobody listens there: the last leader was killed
    done, _ = await asyncio.wait([asking], timeout=0.3)
    assert not done
    async with leader(b"two: ") as address:
        relay.led_by(address)
        assert await asking == b"two: hello\n"


async def test_who_waits_too_long_is_told(door: Door) -> None:
    """An answer in HTTP, with a code and when to ask again."""
    client = await door(Relay(FLEET, patience_s=0.1))
    async with asyncio.timeout(WITHIN_S):
        said = await client[0].read()
    assert said == module.UNAVAILABLE
    assert said.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1" in said
    assert b"refresh: 2" in said, "else a person in a browser is left with this"
    assert b'"code":"not_leading"' in said


async def test_a_leader_that_does_not_know_introductions_is_none(door: Door) -> None:
    """What an older release says to one is no nonce; its caller hears what can be read."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\nInvalid HTTP request received.")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    relay = Relay(FLEET, patience_s=1.0)
    relay.led_by(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
    client = await door(relay)
    async with asyncio.timeout(WITHIN_S):
        assert await client[0].read() == module.UNAVAILABLE
    server.close()


async def test_one_too_many_is_told_at_once(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that wait cost memory: there is a limit, and nobody waits in vain."""
    monkeypatch.setattr(module, "CONNECTIONS_MAX", 1)
    relay = Relay(FLEET, patience_s=WITHIN_S)
    async with leader(b"one: ") as address:
        relay.led_by(address)
        assert await _said(await door(relay)) == b"one: hello\n"
        async with asyncio.timeout(WITHIN_S):
            assert await (await door(relay))[0].read() == module.UNAVAILABLE


async def test_connections_leave_a_leader_that_was_replaced(door: Door) -> None:
    """Its answers may never come, a frozen one's least of all; not while its successor is unknown."""
    relay = Relay(FLEET, patience_s=WITHIN_S)
    async with leader(b"one: ") as first, leader(b"two: ") as second:
        relay.led_by(first)
        client = await door(relay)
        assert await _said(client) == b"one: hello\n"
        relay.led_by(None)
        assert await _said(client) == b"one: hello\n"
        relay.led_by(second)
        async with asyncio.timeout(WITHIN_S):
            assert await client[0].read() == b""
        assert await _said(await door(relay)) == b"two: hello\n"


async def test_a_standby_that_ends_lets_its_connections_finish(door: Door) -> None:
    """It accepts no more, what was asked is answered; then it is done."""
    relay = Relay(FLEET, patience_s=WITHIN_S)
    async with leader(b"one: ") as address:
        relay.led_by(address)
        client = await door(relay)
        assert await _said(client) == b"one: hello\n"
        relay.close_door()
        ending = asyncio.create_task(relay.drained(WITHIN_S))
        assert await _said(client) == b"one: hello\n"
        client[1].close()
        async with asyncio.timeout(WITHIN_S):
            await ending
