"""Server-sent events of one Invocation.

Events that the ledger keeps have an id that says where they stand in the story (`fence.step`), the
same on every reading, so a caller that comes back with `Last-Event-ID` goes on after it. Progress
is never stored and bears no id.
Source: WHATWG HTML, 9.2 Server-sent events.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from tasks.wire import EventView

KEEPALIVE = b": keepalive\n\n"
STEPS = {"accepted": 0, "released": 1, "running": 2, "retry": 3}
"""Of one attempt, in the order they come. `ended` comes after all, `progress` has no place."""


async def event_stream(
    events: AsyncIterator[EventView], *, last_seen: str | None, keepalive_s: float
) -> AsyncGenerator[bytes, None]:
    """Chunks of the stream; a comment after every `keepalive_s` seconds of silence."""
    seen = _place_of(last_seen or "")
    upcoming: asyncio.Future[EventView] = asyncio.ensure_future(_next(events))
    try:
        yield KEEPALIVE  # the headers, and a first sign of life, go out at once
        while True:
            done, _ = await asyncio.wait({upcoming}, timeout=keepalive_s)
            if not done:
                yield KEEPALIVE
                continue
            event = upcoming.result()
            place = _place(event)
            if place is None or place > seen:
                yield _chunk(event, place)
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


class _Over(Exception):
    """The source has no more events."""


def _place(event: EventView) -> tuple[int, int] | None:
    step, fence = STEPS.get(event.kind), event.data.get("fence", 0)
    return None if step is None or not isinstance(fence, int) else (fence, step)


def _place_of(text: str) -> tuple[int, int]:
    fence, _, step = text.partition(".")
    return (int(fence), int(step)) if fence.isdecimal() and step.isdecimal() else (-1, -1)


def _chunk(event: EventView, place: tuple[int, int] | None) -> bytes:
    mark = f"id: {place[0]}.{place[1]}\n" if place is not None else ""
    return f"{mark}event: {event.kind}\ndata: {event.model_dump_json()}\n\n".encode()
