"""Server-sent events of one Invocation.

Events that the ledger keeps are numbered from 1, the same on every reading, so a caller that comes
back with `Last-Event-ID` goes on after it. Progress is never stored and bears no id.
Source: WHATWG HTML, 9.2 Server-sent events.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from tasks.wire import EventView

KEEPALIVE = b": keepalive\n\n"
UNNUMBERED = frozenset({"progress"})


async def event_stream(
    events: AsyncIterator[EventView], *, last_seen: str | None, keepalive_s: float
) -> AsyncIterator[bytes]:
    """Chunks of the stream; a comment after every `keepalive_s` seconds of silence."""
    skip = int(last_seen) if last_seen is not None and last_seen.isdecimal() else 0
    number = 0
    upcoming: asyncio.Future[EventView] = asyncio.ensure_future(_next(events))
    try:
        yield KEEPALIVE  # the headers, and a first sign of life, go out at once
        while True:
            done, _ = await asyncio.wait({upcoming}, timeout=keepalive_s)
            if not done:
                yield KEEPALIVE
                continue
            event = upcoming.result()
            if event.kind not in UNNUMBERED:
                number += 1
            if number > skip:
                yield _chunk(event, None if event.kind in UNNUMBERED else number)
            if event.kind == "ended":
                return
            upcoming = asyncio.ensure_future(_next(events))
    except _Over:
        return
    finally:
        upcoming.cancel()
        await asyncio.gather(upcoming, return_exceptions=True)
        close = getattr(events, "aclose", None)
        if close is not None:
            await close()


async def _next(events: AsyncIterator[EventView]) -> EventView:
    try:
        return await anext(events)
    except StopAsyncIteration:  # a Task cannot carry it
        raise _Over from None


class _Over(Exception):  # noqa: N818 - the end is no error
    """The source has no more events."""


def _chunk(event: EventView, number: int | None) -> bytes:
    mark = f"id: {number}\n" if number is not None else ""
    return f"{mark}event: {event.kind}\ndata: {event.model_dump_json()}\n\n".encode()
