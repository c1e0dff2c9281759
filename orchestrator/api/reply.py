"""What an operation answers with: bytes, or a stream of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import orjson
from pydantic import BaseModel
from starlette.types import Receive, Send

Headers = tuple[tuple[bytes, bytes], ...]
NO_CONTENT = 204
TAKEN_WITHIN_S = 60.0
"""A caller that does not take a part of a stream for so long has it broken off: it would hold its place for ever."""
JSON_TYPE = b"application/json"
_ALWAYS: Headers = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer."""

    body: bytes
    status: int = 200
    media_type: bytes = JSON_TYPE
    headers: Headers = ()

    async def send(self, _receive: Receive, send: Send) -> None:
        """Write it."""
        length = (b"content-length", str(len(self.body)).encode())
        kind = ((b"content-type", self.media_type),) if self.status != NO_CONTENT else ()
        headers = [length, *kind, *_ALWAYS, *self.headers]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer that goes on. It stops when the caller is gone."""

    chunks: AsyncGenerator[bytes, None]
    media_type: bytes
    headers: Headers = ()
    status: int = 200

    async def send(self, receive: Receive, send: Send) -> None:
        """Write until it ends or the caller is gone; then close the source."""
        writing = asyncio.create_task(self._write(send))
        leaving = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait({writing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            if not writing.done():
                writing.cancel()
            await asyncio.gather(writing, leaving, return_exceptions=True)
        error = None if writing.cancelled() else writing.exception()
        if error is not None and not isinstance(error, TimeoutError):
            raise error

    async def _write(self, send: Send) -> None:
        headers = [(b"content-type", self.media_type), *_ALWAYS, *self.headers]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        async with aclosing(self.chunks) as chunks:
            async for chunk in chunks:
                async with asyncio.timeout(TAKEN_WITHIN_S):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def model(value: BaseModel, status: int = 200) -> Reply:
    """One wire model as JSON."""
    return Reply(value.model_dump_json().encode(), status)


def listing(items: Sequence[BaseModel] | Sequence[bytes], next_cursor: str | None = None, status: int = 200) -> Reply:
    """A `Page`. Items that are bytes are JSON already."""
    fragments = [orjson.Fragment(item if isinstance(item, bytes) else item.model_dump_json()) for item in items]
    return Reply(orjson.dumps({"items": fragments, "next": next_cursor}), status)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
