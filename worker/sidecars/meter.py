"""Reads the provider's `usage` from an answer that streams by, without holding it up.

Source: Anthropic Messages API, streaming: `message_start.message.usage`, then `message_delta.usage`, each
with totals of the message so far; chat completions API, streaming: `usage` of the last part, where it was asked
for (`stream_options.include_usage`). Refuses to judge: what is no JSON is not counted, and passes all the same.
"""

from __future__ import annotations

from typing import Any

import orjson

from worker.sidecars.sidecar import Usage
from worker.sidecars.spend import usage_of

LINE_MAX_BYTES = 1_000_000
"""A longer line, or answer that is no stream, is passed and not read: usage is short."""


class StreamMeter:
    """Of one answer."""

    def __init__(self, *, is_stream: bool) -> None:
        self._is_stream = is_stream
        self._rest = bytearray()
        self._is_skipping = False
        self._model = ""
        self._usage: dict[str, Any] = {}

    def feed(self, chunk: bytes) -> None:
        """The next part."""
        self._rest += chunk
        if not self._is_stream:
            if len(self._rest) > LINE_MAX_BYTES:
                self._is_skipping = True
                self._rest.clear()
            return
        *lines, rest = self._rest.split(b"\n")
        self._rest = bytearray(rest)
        for line in lines:
            if not self._is_skipping:
                self._line(bytes(line))
            self._is_skipping = False
        if len(self._rest) > LINE_MAX_BYTES:
            self._is_skipping = True
            self._rest.clear()

    def total(self) -> tuple[str, Usage]:
        """The model that answered, and its tokens."""
        if not self._is_stream and self._rest and not self._is_skipping:
            self._read(bytes(self._rest))
            self._rest.clear()
        return self._model, usage_of(self._usage)

    def _line(self, line: bytes) -> None:
        if line.startswith(b"data:") and b'"usage"' in line:
            self._read(line[5:])

    def _read(self, text: bytes) -> None:
        try:
            said = orjson.loads(text)
        except orjson.JSONDecodeError:
            return
        if not isinstance(said, dict):
            return
        inner = said.get("message")
        message: dict[str, Any] = inner if isinstance(inner, dict) else said
        self._model = message.get("model") or self._model
        usage = message.get("usage")
        if isinstance(usage, dict):
            self._usage |= {key: value for key, value in usage.items() if value is not None}
