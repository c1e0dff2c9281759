"""The leader's listening socket: each connection's first byte says whether a replica passes it on.

Owns what comes before TLS and HTTP, and the time it may take; refuses to read either. uvicorn accepts for itself
otherwise, and then the bytes of an introduction would end up in the TLS handshake.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Coroutine
from contextlib import suppress

import structlog

from orchestrator.introduction import FRAME_BYTES, MAGIC, NONCE_BYTES, Introductions, NotIntroduced, PassedOn
from orchestrator.patience import HEADERS_WITHIN_S, TOO_SLOW

log = structlog.get_logger("mcpfleet.doors")
PASSES_MAX = 4
"""Replicas that one connection may come through: two, while a leader changes."""
NO_ROOM_WAIT_S = 1.0
"""Until a process without file descriptors tries again."""


class Doors:
    """Takes connections until closed."""

    def __init__(
        self,
        listening: socket.socket,
        make: Callable[[PassedOn | None], asyncio.Protocol],
        introductions: Introductions,
        *,
        tls: ssl.SSLContext | None = None,
        within_s: float = HEADERS_WITHIN_S,
    ) -> None:
        """`make`: what speaks on a connection. `within_s`: for its first byte, and for a TLS handshake."""
        self._listening, self._make, self._introductions = listening, make, introductions
        self._tls, self._within_s = tls, within_s
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """From now on."""
        self._listening.setblocking(False)  # noqa: FBT003 - the socket's own
        self._beside(self._accept())

    def close(self) -> None:
        """No more; those that nothing was made of yet are cut."""
        for task in self._tasks:
            task.cancel()

    def _beside(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(self._listening)
            except OSError as error:
                log.warning("not_accepted", error=str(error))
                await asyncio.sleep(NO_ROOM_WAIT_S)
            else:
                self._beside(self._take(sock))

    async def _take(self, sock: socket.socket) -> None:
        sock.setblocking(False)  # noqa: FBT003 - the socket's own
        taken = False
        try:
            passed = await self._passed_on(sock)
            protocol = self._make(passed)
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: protocol, sock, ssl=self._tls, ssl_handshake_timeout=self._within_s if self._tls else None
            )
            taken = True
        except NotIntroduced as error:
            log.warning("replica_not_believed", peer=_name(sock), error=str(error))
        except (OSError, EOFError) as error:
            log.debug("connection_broke", error=str(error))
        finally:
            if not taken:
                sock.close()

    async def _passed_on(self, sock: socket.socket) -> PassedOn | None:
        """What the last of the replicas says that it came through; None without any."""
        passed = None
        try:
            async with asyncio.timeout(self._within_s):
                for _ in range(PASSES_MAX):
                    if await _first(sock) != MAGIC[:1]:
                        return passed
                    passed = await self._introduced(sock)
        except TimeoutError:
            if self._tls is None:
                with suppress(OSError):
                    sock.send(TOO_SLOW)
            raise
        raise NotIntroduced(f"it came through {PASSES_MAX} replicas")

    async def _introduced(self, sock: socket.socket) -> PassedOn:
        if await _exactly(sock, len(MAGIC)) != MAGIC:
            raise NotIntroduced("it begins with a zero")
        nonce = os.urandom(NONCE_BYTES)
        await asyncio.get_running_loop().sock_sendall(sock, MAGIC + nonce)
        return self._introductions.read(await _exactly(sock, FRAME_BYTES), nonce)


async def _first(sock: socket.socket) -> bytes:
    """The next byte, left where it is.

    Raises:
        EOFError: there is none.
    """
    while True:
        try:
            found = sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            await _readable(sock)
            continue
        if not found:
            raise EOFError("it was closed without a word")
        return found


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(sock, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sock)


async def _exactly(sock: socket.socket, number: int) -> bytes:
    """So many bytes and not one more. Raises EOFError: there are fewer."""
    found = b""
    while len(found) < number:
        more = await asyncio.get_running_loop().sock_recv(sock, number - len(found))
        if not more:
            raise EOFError("it was closed within an introduction")
        found += more
    return found


def _name(sock: socket.socket) -> str:
    try:
        return str(sock.getpeername()[0])
    except OSError:
        return "gone"
