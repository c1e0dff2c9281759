"""One agent's standard input and output as messages: a line of JSON each, of a length that a node can hold.

The transport below the SDK's connection, whose own keeps a line without a bound and breaks on JSON that is no
message. Refuses to understand a message beyond its being one. What is no message is passed over, up to a number:
a program that greets is forgiven, one that is no ACP agent is not.
Source: Agent Client Protocol v1, transports: newline-delimited JSON-RPC 2.0, nothing else on standard output.
"""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

LINE_MAX_BYTES = 16_000_000
CHUNK_BYTES = 65_536
STRANGE_LINES_MAX = 20
ASKED_MAX = 100
"""Questions of the agent that have no answer yet: one that asks and does not listen would fill the node."""
SHOWN_CHARS = 200


class Wire:
    """`acp.connection.Transport`. After `receive` gave None, `broken` says why, where the agent is to blame."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._held = bytearray()
        self._looked_bytes = 0
        self._is_reading = False
        self._strange = self._asked = 0
        self.first_strange: str | None = None
        self.broken: str | None = None

    async def send(self, message: dict[str, Any]) -> None:
        """Raises OSError where nobody reads any more; an answer that nobody waits for is dropped."""
        is_answer = "method" not in message
        try:
            self._writer.write(orjson.dumps(message) + b"\n")
            await self._writer.drain()
        except OSError:
            if not is_answer:
                raise
        self._asked -= is_answer

    async def receive(self) -> dict[str, Any] | None:
        """The next message; None at the end, or where there is no sense in reading on."""
        while self.broken is None:
            line = await self._line()
            if line is None:
                return None
            message = _message(line)
            if message is not None:
                self._asked += "method" in message and "id" in message
                if self._asked > ASKED_MAX:
                    self.broken = f"it asked {self._asked} questions and listens to no answer"
                    return None
                return message
            if line.strip():
                self._count(line)
        return None

    async def drain(self) -> None:
        """To the end, of what nobody reads: asyncio does not take a process for ended before."""
        while not self._is_reading and await self._read():
            pass

    async def close(self) -> None:
        """Tell the agent that nothing more comes."""
        self._writer.close()

    async def _line(self) -> bytes | None:
        while (end := self._held.find(b"\n", self._looked_bytes)) < 0:
            self._looked_bytes = len(self._held)
            if self._looked_bytes > LINE_MAX_BYTES:
                self.broken = f"it said a line of more than {LINE_MAX_BYTES} bytes"
                self._held.clear()
                return None
            chunk = await self._read()
            if not chunk:
                return None
            self._held += chunk
        line = bytes(self._held[:end])
        del self._held[: end + 1]
        self._looked_bytes = 0
        return line

    async def _read(self) -> bytes:
        self._is_reading = True
        try:
            return await self._reader.read(CHUNK_BYTES)
        finally:
            self._is_reading = False

    def _count(self, line: bytes) -> None:
        self._strange += 1
        shown = line[:SHOWN_CHARS].decode(errors="replace")
        self.first_strange = self.first_strange or shown
        if self._strange > STRANGE_LINES_MAX:
            self.broken = (
                f"it said {self._strange} lines that are no messages of ACP, the first: {self.first_strange!r}"
            )


def _message(line: bytes) -> dict[str, Any] | None:
    """None: no message. Only what the connection can handle is one."""
    try:
        said = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(said, dict):
        return None
    if isinstance(said.get("method"), str):
        return said
    is_answer = "method" not in said and isinstance(said.get("id"), int)
    is_sound = isinstance(said.get("error", {}), dict) and ("result" in said or "error" in said)
    return said if is_answer and is_sound else None
