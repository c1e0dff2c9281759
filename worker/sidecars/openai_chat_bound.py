"""How much of an answer is held at once: the client's decoder keeps an event until it is whole, without a bound.

Imported by whoever makes the client, for it needs the client's own transport library.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2

EVENT_MAX_BYTES = 4_000_000
"""Of one event of a stream, or of a whole answer that is none."""


class TooMuch(ValueError):
    """An endpoint that does not stop."""


async def bound(response: httpx2.Response) -> None:
    """An event hook: from here on this answer is counted as it is read."""
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    is_stream = "event-stream" in response.headers.get("content-type", "")
    response.stream = _Bounded(response.stream, is_stream=is_stream)


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream, *, is_stream: bool) -> None:
        self._inner, self._is_stream = inner, is_stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        held = 0
        async for part in self._inner:
            ended = max(part.rfind(b"\n\n"), part.rfind(b"\r\n\r\n")) if self._is_stream else -1
            held = len(part) - ended if ended >= 0 else held + len(part)
            if held > EVENT_MAX_BYTES:
                raise TooMuch(f"more than {EVENT_MAX_BYTES} bytes without an end")
            yield part

    async def aclose(self) -> None:
        await self._inner.aclose()
