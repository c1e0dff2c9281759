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
        self._size_bytes = 0
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
        self._size_bytes += len(part)
        if self._size_bytes <= self._limit_bytes:
            self._parts.append(part)
            return
        if self._parts:
            whole = b"".join(self._parts)
            self._parts.clear()
            self._head, self._tail = whole[:EDGE_BYTES], whole[-EDGE_BYTES:]
        self._head = (self._head + part[:EDGE_BYTES])[:EDGE_BYTES]
        self._tail = (self._tail + part[-EDGE_BYTES:])[-EDGE_BYTES:]

    def _take(self) -> bytes | Oversize:
        size = self._size_bytes
        line = b"".join(self._parts)
        head, tail = self._head, self._tail
        self._parts, self._size_bytes, self._head, self._tail = [], 0, b"", b""
        if size <= self._limit_bytes:
            return line
        match = _HEAD_ID.search(head) or _TAIL_ID.search(tail)
        return Oversize(size, int(match.group(1)) if match else None)


class StderrLog:
    """A server's stderr in the log: bounded lines, bounded rate, known secrets struck out."""

    def __init__(self, server: str, *, secrets: tuple[str, ...], clock: Clock) -> None:
        self.server, self._secrets, self._clock = server, secrets, clock
        self._cutter = LineCutter(4 * LINE_CHARS)
        self._tokens, self._refilled_s, self._dropped = float(BURST_LINES), clock.mono_s(), 0
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)

    def feed(self, chunk: bytes) -> None:
        """Log what is allowed of it, count the rest."""
        for line in self._cutter.feed(chunk):
            if isinstance(line, Oversize):
                self._dropped += 1
                continue
            if not self._may_log():
                self._dropped += 1
                continue
            text = self._clean(line)
            self.tail.append(text)
            log.info("server_stderr", server=self.server, line=text, dropped_lines=self._dropped)
            self._dropped = 0

    def _may_log(self) -> bool:
        now_s = self._clock.mono_s()
        self._tokens = min(BURST_LINES, self._tokens + (now_s - self._refilled_s) * LINES_PER_S)
        self._refilled_s = now_s
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _clean(self, line: bytes) -> str:
        text = line.decode("utf-8", "replace")
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return "".join(c if c.isprintable() or c == "\t" else "?" for c in text[:LINE_CHARS])
