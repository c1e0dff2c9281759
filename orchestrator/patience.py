"""How long the HTTP server waits for a request, and how large its headers may be. uvicorn (0.54) limits neither.

Owns both, as the protocol class that uvicorn is given. A request that came in one piece costs no timer. How large
bodies may be is their readers' to say; idle connections between requests are uvicorn's own (`timeout_keep_alive`).
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from orchestrator.introduction import PassedOn

HEADERS_WITHIN_S = 10.0
"""From the connection, or from a request's first byte, to the end of its headers. nginx waits 60."""
HEADERS_BYTES_MAX = 64 * 1024
"""A client certificate in a header, and a JWT beside it, are below 16 KiB."""
BODY_WITHIN_S = 30.0
BODY_BYTES_PER_S = 1024
"""So many, at least, over each `BODY_WITHIN_S` until it is whole."""
TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class PatientProtocol(HttpToolsProtocol):
    """One connection."""

    headers_within_s, body_within_s = HEADERS_WITHIN_S, BODY_WITHIN_S
    passed_on: PassedOn | None = None
    """Set before it is connected, where a replica passes it on: its own peer is that replica then."""

    def __init__(self, *given: Any, **named: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(*given, **named)
        self._timer: asyncio.TimerHandle | None = None
        self._in_headers = self._in_body = False
        self._began_s = 0.0
        self._bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client that connects has something to say."""
        super().connection_made(transport)
        if self.passed_on is not None:
            self.client = self.passed_on.client
        self._in_headers = True
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._in_headers = self._in_body = False
        self._stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """What is not whole with this is waited for, so long."""
        super().data_received(data)
        if self._in_headers or self._in_body:
            self._bytes += len(data)
            if self._in_headers and self._bytes > HEADERS_BYTES_MAX:
                self._end(TOO_LARGE)
            elif self._timer is None and not self.transport.is_closing():
                self._wait()

    def on_message_begin(self) -> None:
        """A request begins, the first or a later one of this connection."""
        super().on_message_begin()
        self._in_headers = True

    def on_headers_complete(self) -> None:
        """Its headers are whole."""
        self._in_headers, self._in_body = False, True
        self._stop()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """All of it is there."""
        self._in_body = False
        self._stop()
        super().on_message_complete()

    def _wait(self) -> None:
        self._began_s, self._bytes = self.loop.time(), 0
        within_s = self.headers_within_s if self._in_headers else self.body_within_s
        self._timer = self.loop.call_later(within_s, self._late)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if self._in_body:
            if self.flow.read_paused:  # whoever is to read it is busy: that is not the client's fault
                self._wait()
                return
            if self._bytes >= BODY_BYTES_PER_S * self.body_within_s:
                self._wait()
                return
        self._end(TOO_SLOW)

    def _end(self, answer: bytes) -> None:
        self._in_headers = self._in_body = False
        self._stop()
        if not self.transport.is_closing():
            cycle: RequestResponseCycle | None = self.cycle  # None before the first request, whatever its type says
            if cycle is None or cycle.response_complete or not cycle.response_started:
                self.transport.write(answer)
            self.transport.close()
