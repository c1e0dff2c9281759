"""Bytes from a pipe cut into lines, each bounded; and a server's stderr on its way to the log.

Pure but for the log. Refuses to grow with what a server writes: a line over the limit is skipped to
its end, and only its head and tail are kept, to tell which answer it was.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import structlog

from tasks.clock import Clock

log = structlog.get_logger()

EDGE_BYTES = 256
LINE_CHARS = 500
"""A stderr line is logged up to this length."""
PARTIAL_BYTES = 16_000
"""An unfinished stderr line is kept up to this length, then skipped to its end."""
TAIL_LINES = 5
BURST_LINES = 40
LINES_PER_S = 5.0
"""Per server: enough to read what happened, too little to fill a disk (about 200 MB a day at worst)."""

_HEAD_ID = re.compile(rb'^\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"id"\s*:\s*(\d+)\s*,')
_TAIL_ID = re.compile(rb'"id"\s*:\s*(\d+)\s*(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*$')


@dataclass(frozen=True, slots=True)
class Oversize:
    """A line that was over the limit, and which request it seems to answer."""

    size_bytes: int
    request_id: int | None


class LineCutter:
    """Feeds on chunks, gives lines without their newline."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._parts: list[bytes] = []
        self.size_bytes = 0
        """Of the line that is not complete yet."""
        self._head = b""
        self._tail = b""

    def feed(self, chunk: bytes) -> Iterator[bytes | Oversize]:
        """Every line that this chunk completes."""
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            self._add(chunk[start:end])
            yield self._take()
            start = end + 1
        if start < len(chunk):
            self._add(chunk[start:])

    def _add(self, part: bytes) -> None:
        self.size_bytes += len(part)
        if self.size_bytes <= self._limit_bytes:
            self._parts.append(part)
            return
        if self._parts:
            whole = b"".join(self._parts)
            self._parts.clear()
            self._head, self._tail = whole[:EDGE_BYTES], whole[-EDGE_BYTES:]
        self._head = (self._head + part[:EDGE_BYTES])[:EDGE_BYTES]
        self._tail = (self._tail + part[-EDGE_BYTES:])[-EDGE_BYTES:]

    def _take(self) -> bytes | Oversize:
        size = self.size_bytes
        line = b"".join(self._parts)
        head, tail = self._head, self._tail
        self._parts, self.size_bytes, self._head, self._tail = [], 0, b"", b""
        if size <= self._limit_bytes:
            return line
        match = _HEAD_ID.search(head) or _TAIL_ID.search(tail)
        return Oversize(size, int(match.group(1)) if match else None)


class StderrLog:
    """A server's stderr in the log: bounded lines, bounded rate, known secrets struck out."""

    def __init__(self, server: str, *, secrets: tuple[str, ...], clock: Clock) -> None:
        self.server, self._secrets, self._clock = server, secrets, clock
        self._partial, self._is_skipping = b"", False
        self._tokens, self._refilled_s, self._dropped = float(BURST_LINES), clock.mono_s(), 0
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)

    def strike(self, values: tuple[str, ...]) -> None:
        """Out of every line from now on, too."""
        self._secrets = (*values, *self._secrets)

    def feed(self, chunk: bytes) -> None:
        """Log what is allowed of it, count the rest: a flood costs one count per chunk, not one step per line."""
        self._refill()
        if self._is_skipping:
            start = chunk.find(b"\n") + 1
            if self._tokens < 1 or start == 0:
                self._dropped += chunk.count(b"\n")
                return
            chunk, self._is_skipping = chunk[start:], False
        *lines, rest = (self._partial + chunk).split(b"\n", int(self._tokens))
        for line in lines:
            self._tokens -= 1
            self._log(line)
        self._partial = rest
        if b"\n" in rest or len(rest) > PARTIAL_BYTES:
            self._dropped += rest.count(b"\n")
            self._partial, self._is_skipping = b"", True

    def _refill(self) -> None:
        now_s = self._clock.mono_s()
        self._tokens = min(BURST_LINES, self._tokens + (now_s - self._refilled_s) * LINES_PER_S)
        self._refilled_s = now_s

    def _log(self, line: bytes) -> None:
        text = self._clean(line)
        self.tail.append(text)
        log.info("server_stderr", server=self.server, line=text, dropped_lines=self._dropped)
        self._dropped = 0

    def _clean(self, line: bytes) -> str:
        text = line.decode("utf-8", "replace")
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return "".join(c if c.isprintable() or c == "\t" else "?" for c in text[:LINE_CHARS])
