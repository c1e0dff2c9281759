"""How long the HTTP server waits for a request's headers, and how many it takes. uvicorn (0.54) has no limit of either.

Owns both, as the protocol class that uvicorn is given. Bodies are `api/edges.py`'s. Idle connections between requests
are uvicorn's own (`timeout_keep_alive`).
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

HEADERS_WITHIN_S = 10.0
"""From the connection, or from a request's first byte, to the end of its headers. nginx waits 60."""
HEADERS_BYTES_MAX = 64 * 1024
"""A client certificate in a header, and a JWT beside it, are below 16 KiB."""
TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class PatientProtocol(HttpToolsProtocol):
    """One connection."""

    headers_within_s = HEADERS_WITHIN_S

    def __init__(self, *given: Any, **named: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(*given, **named)
        self._cut: asyncio.TimerHandle | None = None
        self._header_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client that connects has something to say."""
        super().connection_made(transport)
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Counted only until the headers are whole."""
        if self._cut is not None:
            self._header_bytes += len(data)
        super().data_received(data)
        if self._cut is not None and self._header_bytes > HEADERS_BYTES_MAX:
            self._end(TOO_LARGE)

    def on_message_begin(self) -> None:
        """A request begins, the first or a later one of this connection."""
        super().on_message_begin()
        self._await_headers()

    def on_headers_complete(self) -> None:
        """They are whole."""
        self._stop_waiting()
        super().on_headers_complete()

    def _await_headers(self) -> None:
        if self._cut is None:
            self._header_bytes = 0
            self._cut = self.loop.call_later(self.headers_within_s, self._end, TOO_SLOW)

    def _stop_waiting(self) -> None:
        if self._cut is not None:
            self._cut.cancel()
            self._cut = None

    def _end(self, answer: bytes) -> None:
        self._stop_waiting()
        if not self.transport.is_closing():
            cycle: RequestResponseCycle | None = self.cycle  # None before the first request, whatever its type says
            if cycle is None or cycle.response_complete:
                self.transport.write(answer)
            self.transport.close()
