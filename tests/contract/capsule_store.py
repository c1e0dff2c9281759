"""Where nodes of a test save sessions, and find what another one saved."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from worker.sidecars.capsule import opened

WAIT_S = 90.0
INVOCATION = "inv-1"
"""The one call of each such test."""


@dataclass
class Store:
    """What both nodes reach."""

    node: str = "a1"
    fence: int = 1
    limit_bytes: int = 10**7
    left: str | None = None
    spent_usd: float | None = None
    data: bytes = b""
    number: int = 0
    until: float | None = None
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def fetch(self) -> bytes:
        """What was saved."""
        return self.data

    async def save(self, number: int, data: bytes) -> None:
        """The newest."""
        async with self.news:
            self.data = data
            assert number > self.number
            self.number = number
            self.news.notify_all()

    async def until_turn(self, turns: int) -> None:
        """So many turns are in the newest; some may never have been the newest."""
        async with asyncio.timeout(WAIT_S), self.news:
            await self.news.wait_for(lambda: self.data and opened(self.data, INVOCATION).used.turns >= turns)

    def of_the_next(self) -> Store:
        """As the next attempt finds it."""
        return Store("b1", 2, self.limit_bytes, "digest", data=self.data)
