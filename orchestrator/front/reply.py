"""A JSON-RPC response over HTTP: one JSON body, or, when it takes long, a stream kept alive by pings.

Source: MCP, Streamable HTTP: either form answers a POST; comments of an event stream are ignored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from starlette.types import Receive, Send

from orchestrator.front.exact_json import write

T = TypeVar("T")

_JSON = (b"content-type", b"application/json")
_STREAM_HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


class LongReply:
    """One response. Begins to stream only when it must."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._is_streaming = False

    async def wait(self, work: Coroutine[Any, Any, T], receive: Receive, keepalive_s: float) -> T | None:
        """What `work` returns, or None when the client went away: `work` was cancelled then.

        Args:
            work: whatever takes long.
            receive: of the request, whose body was read.
            keepalive_s: seconds of silence before a ping.
        """
        working = asyncio.create_task(work)
        gone = asyncio.create_task(_disconnected(receive))
        try:
            while True:
                await asyncio.wait({working, gone}, timeout=keepalive_s, return_when=asyncio.FIRST_COMPLETED)
                if working.done():
                    return working.result()
                if gone.done():
                    return None
                await self._part(b": ping\r\n\r\n")
        finally:
            gone.cancel()
            if not working.done():
                working.cancel()
                with suppress(asyncio.CancelledError):
                    await working

    async def end(self, message: Mapping[str, Any], status: int) -> None:
        """Send the JSON-RPC message. The status counts only where nothing was sent before."""
        text = write({"jsonrpc": "2.0", **message})
        if self._is_streaming:
            await self._part(b"event: message\r\ndata: " + text + b"\r\n\r\n", is_last=True)
        else:
            await write_json(self._send, status, text)

    async def _part(self, part: bytes, *, is_last: bool = False) -> None:
        if not self._is_streaming:
            self._is_streaming = True
            await self._send({"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS})
        await self._send({"type": "http.response.body", "body": part, "more_body": not is_last})


async def write_json(send: Send, status: int, text: bytes) -> None:
    """A whole response."""
    headers = [_JSON, (b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
