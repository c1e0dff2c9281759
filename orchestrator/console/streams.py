"""How many streams of events are open, of each person and in all, and how long one may not be read.

Each is a connection that stays, and a page that is fetched again and again: without a bound, whoever has a key could
take all that the leader's event loop has. Refuses to know what streams say.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Mapping

import structlog
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from orchestrator.console.inside import Refused
from orchestrator.console.live import STREAM_TYPE

log = structlog.get_logger("mcpfleet.console")
EACH_MAX = 20
"""Of one person: a browser keeps six connections to a host, and a hidden page closes its own."""
ALL_MAX = 200
TAKEN_WITHIN_S = 30.0
"""A reader that does not take what was sent for so long has its stream ended; a browser comes back by itself."""


class Streams:
    """Counts them."""

    def __init__(self, headers: Mapping[str, str], *, each: int = EACH_MAX, at_once: int = ALL_MAX) -> None:
        self._headers, self._each, self._at_once = headers, each, at_once
        self._open: Counter[str] = Counter()

    def admit(self, whose: str) -> None:
        """Raises Refused where there are too many."""
        if self._open[whose] >= self._each:
            detail = (
                f"{whose} has {self._each} live pages open; close some, or hold them still: they are read as before"
            )
            raise Refused(429, "too_many_streams", detail, 30)
        if self._open.total() >= self._at_once:
            raise Refused(503, "too_many_streams", f"{self._at_once} live pages are open here; reload this one", 30)

    def answer(self, whose: str, chunks: AsyncGenerator[bytes, None]) -> StreamingResponse:
        """The stream, counted while it is open."""
        return _Counted(chunks, self._headers, self._open, whose)


class _Counted(StreamingResponse):
    def __init__(
        self, chunks: AsyncGenerator[bytes, None], headers: Mapping[str, str], opened: Counter[str], whose: str
    ) -> None:
        super().__init__(chunks, 200, headers, STREAM_TYPE)
        self._chunks, self._opened, self._whose = chunks, opened, whose

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Write until it ends, the reader is gone, or takes nothing any more."""

        async def patiently(message: Message) -> None:
            async with asyncio.timeout(TAKEN_WITHIN_S):
                await send(message)

        self._opened[self._whose] += 1
        try:
            await super().__call__(scope, receive, patiently)
        except* TimeoutError:
            log.info("stream_not_read", principal=self._whose, within_s=TAKEN_WITHIN_S)
        finally:
            self._opened[self._whose] -= 1
            if not self._opened[self._whose]:
                del self._opened[self._whose]
            await self._chunks.aclose()
