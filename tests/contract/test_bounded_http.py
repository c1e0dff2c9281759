"""The way out's HTTP server under a flood: real connections on a unix socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn

from worker.sidecars.bounded_http import BoundedHttp
from worker.sidecars.unix_socket import listening

WAIT_S = 30.0
ASKED = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Three(BoundedHttp):
    most = 3


class _Streams:
    """An app that says half of its answer, and the other half when it may."""

    def __init__(self) -> None:
        self.goes_on = asyncio.Event()

    async def __call__(self, _scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"8")]})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        await self.goes_on.wait()
        await send({"type": "http.response.body", "body": b"half"})


@asynccontextmanager
async def _serving(at: Path, app: _Streams) -> AsyncIterator[None]:
    with listening(at) as listener:
        server = uvicorn.Server(uvicorn.Config(app, http=_Three, log_level="warning", lifespan="off"))
        await asyncio.to_thread(server.config.load)
        server.lifespan = server.config.lifespan_class(server.config)
        await server.startup(sockets=[listener])
        try:
            yield
        finally:
            server.force_exit = True
            await server.shutdown(sockets=[])


async def _asked(at: Path) -> Ends:
    """Until the first half of the answer is here."""
    reader, writer = await asyncio.open_unix_connection(str(at))
    writer.write(ASKED)
    await reader.readuntil(b"half")
    return reader, writer


async def _is_closed(ends: Ends) -> bool:
    try:
        return await ends[0].read(1) == b""
    except ConnectionError:
        return True


async def test_connections_that_say_nothing_make_room(tmp_path: Path) -> None:
    """Whoever asks is answered, however many are open; no more are kept than may be."""
    app, at = _Streams(), tmp_path / "s"
    app.goes_on.set()
    async with _serving(at, app), asyncio.timeout(WAIT_S):
        silent = [await asyncio.open_unix_connection(str(at)) for _ in range(20)]
        asking = await _asked(at)
        waits = [asyncio.create_task(_is_closed(ends)) for ends in silent]
        while sum(wait.done() for wait in waits) < 18:
            await asyncio.wait([wait for wait in waits if not wait.done()], return_when=asyncio.FIRST_COMPLETED)
        for _, writer in (*silent, asking):
            writer.close()
        await asyncio.gather(*waits)


async def test_an_answer_on_its_way_is_not_broken_off(tmp_path: Path) -> None:
    """One more than may be is closed instead."""
    app, at = _Streams(), tmp_path / "s"
    async with _serving(at, app), asyncio.timeout(WAIT_S):
        busy = [await _asked(at) for _ in range(3)]
        surplus = await asyncio.open_unix_connection(str(at))
        assert await _is_closed(surplus)
        app.goes_on.set()
        assert [await reader.readexactly(4) for reader, _ in busy] == [b"half"] * 3
        for _, writer in (*busy, surplus):
            writer.close()
