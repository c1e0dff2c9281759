"""A way to a server that can be cut: TCP, byte by byte, until it is told to be gone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Cuttable:
    """One server's connections. Cut, those that are there end, and new ones are ended at once."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._is_cut = False

    def cut(self) -> None:
        """Nothing passes any more."""
        self._is_cut = True
        for writer in self._writers:
            writer.transport.abort()

    def mend(self) -> None:
        """New connections pass again."""
        self._is_cut = False

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, both ways, until either side ends it."""
        with contextlib.suppress(OSError):
            if self._is_cut:
                writer.transport.abort()
                return
            there_reader, there = await asyncio.open_connection("127.0.0.1", self._port)
            self._writers |= {writer, there}
            try:
                await asyncio.gather(_pump(reader, there), _pump(there_reader, writer))
            finally:
                self._writers -= {writer, there}
                writer.transport.abort()
                there.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def cuttable(port: int) -> AsyncIterator[tuple[Cuttable, str]]:
    """The way to the server at `port` of this machine, and its own address."""
    way = Cuttable(port)
    server = await asyncio.start_server(way.pass_on, "127.0.0.1", 0)
    try:
        yield way, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        way.cut()
        server.close()
