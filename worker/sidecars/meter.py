"""Reads the provider's `usage` from an answer that streams by, without holding it up.

Source: Anthropic Messages API, streaming: `message_start.message.usage`, then `message_delta.usage`, each
with totals of the message so far; `message_stop` is the last. Chat completions API, streaming: `usage` of the
last part but `[DONE]`, where it was asked for (`stream_options.include_usage`). Refuses to judge: what is no
JSON is not counted, and passes all the same. Of an answer that broke off, or says no usage, it counts roughly.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson

from worker.sidecars.openai_chat_stream import tokens
from worker.sidecars.sidecar import Usage
from worker.sidecars.spend import usage_of

LINE_MAX_BYTES = 1_000_000
"""A longer line, or answer that is no stream, is passed and not read: it is counted by its length."""


class StreamMeter:
    """Of one answer."""

    def __init__(self, *, is_stream: bool, asked_bytes: int = 0) -> None:
        """`asked_bytes`: of the request, for an answer that says nothing of its input."""
        self.is_over = False
        """Its end was read: nothing that counts can follow."""
        self._is_stream, self._asked_bytes = is_stream, asked_bytes
        self._rest = bytearray()
        self._is_skipping = False
        self._model = ""
        self._usage: dict[str, Any] = {}
        self._is_whole = False
        """The usage is that of the whole answer."""
        self._said_bytes = 0

    def feed(self, chunk: bytes) -> None:
        """The next part."""
        self._rest += chunk
        if not self._is_stream:
            if self._is_skipping or len(self._rest) > LINE_MAX_BYTES:
                self._is_skipping = True
                self._said_bytes += len(self._rest)
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
            self._said_bytes += len(self._rest)
            self._rest.clear()

    def total(self) -> tuple[str, Usage]:
        """The model that answered, and its tokens."""
        if not self._is_stream and self._rest and not self._is_skipping:
            self._said_bytes += len(self._rest)
            self._read(bytes(self._rest))
            self._is_whole = bool(self._usage)
            self._rest.clear()
        usage = usage_of(self._usage)
        if self._is_whole:
            return self._model, usage
        asked = tokens(self._asked_bytes) if usage == Usage() else usage.input
        said = max(usage.output, tokens(self._said_bytes))
        return self._model, replace(usage, input=asked, output=said, is_estimated=True)

    def _line(self, line: bytes) -> None:
        if line.startswith(b"data:"):
            self.is_over = self.is_over or line[5:].strip() == b"[DONE]"
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
        if isinstance(message.get("model"), str):
            self._model = message["model"] or self._model
        usage = message.get("usage")
        if isinstance(usage, dict):
            self._usage |= {key: value for key, value in usage.items() if value is not None}
            self._is_whole = self._is_whole or said.get("type") == "message_delta" or "prompt_tokens" in usage
        self.is_over = self.is_over or said.get("type") == "message_stop"
        delta = said.get("delta")
        if isinstance(delta, dict) and said.get("type") == "content_block_delta":
            self._said_bytes += _text_bytes(delta)
        choices = said.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            self._said_bytes += _text_bytes(choice.get("delta")) if isinstance(choice, dict) else 0


def _text_bytes(part: object) -> int:
    """Of all text in a part of an answer, whatever it is named: about."""
    if isinstance(part, str):
        return len(part)
    inside = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    return sum(map(_text_bytes, inside))
