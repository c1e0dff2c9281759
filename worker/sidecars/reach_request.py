"""One connection of a run to its proxy until it is a tunnel: what was asked, and the answer, in HTTP/1.1.

Owns the words of the protocol; h11 reads and writes them. Refuses every method but CONNECT, and to decide who
may go where.
Source: RFC 9110 9.3.6 (CONNECT), RFC 9112 3.2.3 (authority-form).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from http import HTTPStatus

import h11

from worker.workspaces.destinations import Target, target_of

HEAD_MAX_BYTES = 16_384
CHUNK_BYTES = 65_536
LINGER_S, LINGER_BYTES = 1.0, 1_000_000
"""What still comes of a request that was refused is read for so long, or its answer would be lost with it."""
CONNECT = b"CONNECT"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there is no tunnel."""

    status: HTTPStatus
    why: str
    """For the status line, which most clients show: one short line of ASCII."""
    do: str = ""
    """What to do: for the body, which few clients show."""


class Opening:
    """A connection of which nothing was read yet."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_MAX_BYTES)
        self._has_body = True

    async def asked(self) -> Target | Refusal | None:
        """None: it hung up before it had asked for anything."""
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                chunk = await self._reader.read(CHUNK_BYTES)
                if not chunk:
                    return None
                self._http.receive_data(chunk)
        except h11.RemoteProtocolError as error:
            return Refusal(HTTPStatus(error.error_status_hint), "this is no request of HTTP/1.1 to a proxy")
        if not isinstance(event, h11.Request):
            return None
        self._has_body = event.method != b"HEAD"
        if event.method != CONNECT:
            why = "only TLS tunnels (CONNECT) lead out of here"
            return Refusal(HTTPStatus.FORBIDDEN, why, "Use an https:// address: plain http is not passed on.")
        try:
            return target_of(event.target.decode("ascii", "replace"))
        except ValueError:
            return Refusal(HTTPStatus.BAD_REQUEST, "CONNECT wants host:port")

    async def accept(self) -> bytes:
        """From now on it is a tunnel; what the run has said into it already."""
        self._send(h11.Response(status_code=HTTPStatus.OK, headers=[], reason=b"Connection established"))
        await self._writer.drain()
        return self._http.trailing_data[0]

    async def refuse(self, refusal: Refusal) -> None:
        """Say why and what to do, then read what still comes for a while."""
        body = f"mcpfleet: {refusal.why}. {refusal.do}".strip().encode() + b"\n"
        headers = [("content-type", "text/plain; charset=utf-8"), ("content-length", str(len(body)))]
        reason = refusal.why.encode("ascii", "replace")
        self._send(h11.Response(status_code=refusal.status, headers=[*headers, ("connection", "close")], reason=reason))
        if self._has_body:
            self._send(h11.Data(data=body))
        self._send(h11.EndOfMessage())
        await self._writer.drain()
        self._writer.write_eof()
        left = LINGER_BYTES
        try:
            async with asyncio.timeout(LINGER_S):
                while left > 0 and (chunk := await self._reader.read(CHUNK_BYTES)):
                    left -= len(chunk)
        except TimeoutError:
            pass

    def _send(self, event: h11.Response | h11.Data | h11.EndOfMessage) -> None:
        self._writer.write(self._http.send(event) or b"")
