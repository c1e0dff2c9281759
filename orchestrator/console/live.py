"""When a page is to be fetched again: server-sent events without content.

A stream says *that* something happened, never what: the page is then asked for like any other, so nothing is shown
here that the API does not show. Only a call's progress is passed on, from the API's own stream.

Throttled, and every so often said without cause, for leases and loads that no
happening tells of. A stream ends with its login. Source: WHATWG HTML, 9.2 Server-sent events.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

TICK_EVERY_S = 1.0
"""At most so often."""
ANYWAY_EVERY_S = 5.0
"""At least so often."""
PAGES_A_SECOND = 10
"""Open pages that are told at that pace. More are told less often, in proportion: each telling has its page fetched
again, 3 to 20 ms of the event loop, which the leader's lease needs."""
STREAM_TYPE = "text/event-stream"
TICK, OUT = b"event: tick\ndata: 1\n\n", b"event: out\ndata: 1\n\n"
RETRY = b"retry: 2000\n\n"
"""Milliseconds after which a browser comes back, to another leader for one."""


class Pulse:
    """Wakes every stream when something happened."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Event] = set()
        self._open = 0
        self._over = asyncio.Event()

    def end(self) -> None:
        """This orchestrator ends: every browser is to come back, to whoever leads then."""
        self._over.set()

    def beat(self, _happening: object = None) -> None:
        """Something happened. Called in the event loop, with every happening of the fleet: it costs next to nothing."""
        for one in self._waiting:
            one.set()

    async def stream(
        self, is_good: Callable[[], Awaitable[bool]], news: AsyncIterator[bytes] | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Ticks, while the login is good.

        Args:
            is_good: asked before every tick.
            news: events of one call, instead of the whole fleet's happenings.
        """
        happened = asyncio.Event()
        progress: list[bytes] = []
        listening = asyncio.create_task(_wake(news, happened, progress)) if news is not None else None
        if listening is None:
            self._waiting.add(happened)
        self._open += 1
        try:
            yield RETRY
            while await is_good():
                yield TICK
                if progress:
                    yield progress.pop()
                if await self._is_over(happened):
                    return
            yield OUT
        finally:
            self._open -= 1
            self._waiting.discard(happened)
            if listening is not None:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)

    def pace_s(self) -> float:
        """Seconds between two tellings of one page, at least."""
        return TICK_EVERY_S * max(1.0, self._open / PAGES_A_SECOND)

    async def _is_over(self, happened: asyncio.Event) -> bool:
        """Wait until something happened, but not at once, and not for ever."""
        await _within(self.pace_s(), self._over)
        if not self._over.is_set():
            await _within(ANYWAY_EVERY_S - TICK_EVERY_S, happened, self._over)
        happened.clear()
        return self._over.is_set()


async def _within(limit_s: float, *events: asyncio.Event) -> None:
    """Until one of them is set, or the time is over."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waiting:
            one.cancel()


async def _wake(news: AsyncIterator[bytes], happened: asyncio.Event, progress: list[bytes]) -> None:
    """Of progress, which nobody stores, the latest word is passed on as it came."""
    async for chunk in news:
        if chunk.startswith(b"event: progress"):
            progress[:] = [chunk]
        if not chunk.startswith(b":"):
            happened.set()


async def relay(
    first: bytes, source: AsyncGenerator[bytes, None], is_good: Callable[[], Awaitable[bool]]
) -> AsyncGenerator[bytes, None]:
    """A stream as it is, while the login is good: the source says something every few seconds, if only a comment."""
    try:
        yield first
        async for chunk in source:
            if not await is_good():
                return
            yield chunk
    finally:
        await source.aclose()
