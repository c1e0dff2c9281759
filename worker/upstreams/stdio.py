"""One MCP server process as a transport: started in its own process group, ended whole.

Own and not the SDK's `stdio_client`, because that one has no bound on the length of a line or on
junk, needs three tasks and two rendezvous per message, and leaves what a server started when the
server itself exits politely. Refuses to restart anything: `worker/upstreams/remote.py` does.
"""

from __future__ import annotations

import asyncio
import signal
from types import TracebackType
from typing import Self

import anyio
from mcp.client._transport import TransportStreams
from mcp.shared.message import SessionMessage

from tasks.clock import Clock
from worker.upstreams.filling import Filled, SecretSource, filled_stdio, memory_folder
from worker.upstreams.lines import StderrLog
from worker.upstreams.pipes import Pipes
from worker.upstreams.servers_entries import StdioEntry
from worker.upstreams.upstream import Alarm


class StdioLink:
    """The transport of one process, for one session. Enter it once."""

    kind = "stdio"

    def __init__(
        self, entry: StdioEntry, *, alarm: Alarm, limit_bytes: int, clock: Clock, secrets: SecretSource
    ) -> None:
        self._entry, self._secrets, self._filled = entry, secrets, Filled()
        self._stderr = StderrLog(entry.name, secrets=entry.secrets, clock=clock)
        self._pipes = Pipes(self._stderr, limit_bytes=limit_bytes, on_down=alarm.down)

    async def __aenter__(self) -> TransportStreams:
        entry, self._filled = await filled_stdio(self._entry, self._secrets, memory_folder)
        self._stderr.strike(self._filled.values)
        try:
            await asyncio.get_running_loop().subprocess_exec(
                lambda: self._pipes,
                entry.command,
                *entry.args,
                env=dict(entry.env),
                cwd=entry.cwd,
                start_new_session=True,
            )
        except asyncio.CancelledError:
            await self.__aexit__(None, None, None)
            raise
        except BaseException:
            self._filled.empty()
            raise
        return _Inbox(self._pipes), _Outbox(self._pipes)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await self._pipes.stop()
        self._filled.empty()

    def kill(self) -> None:
        """SIGKILL to the process group, at once: for a close that ran out of time."""
        self._pipes.signal(signal.SIGKILL)

    def outage(self) -> str | None:
        """A pipe is there or the session is over."""
        return None

    def why_ended(self, error: BaseException | None) -> str | None:
        """What is known of the end, for people; the last line of stderr is part of it."""
        if isinstance(error, FileNotFoundError | NotADirectoryError | PermissionError):
            return (
                f"cannot start {error.filename or self._entry.command!r}: {error.strerror}; check command, cwd and PATH"
            )
        note = self._pipes.exit_note()
        if note is None:
            return None
        last = f"; its last line on stderr: {self._stderr.tail[-1]}" if self._stderr.tail else ""
        return note + last


class _Inbox:
    """The SDK's `ReadStream` over the pipes."""

    def __init__(self, pipes: Pipes) -> None:
        self._pipes = pipes

    async def receive(self) -> SessionMessage | Exception:
        message = await self._pipes.next_message()
        if message is None:
            raise anyio.EndOfStream
        return message

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        message = await self._pipes.next_message()
        if message is None:
            raise StopAsyncIteration
        return message

    async def aclose(self) -> None:
        self._pipes.close_inbox()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class _Outbox:
    """The SDK's `WriteStream` over the pipes."""

    def __init__(self, pipes: Pipes) -> None:
        self._pipes = pipes

    async def send(self, item: SessionMessage, /) -> None:
        data = item.message.model_dump_json(by_alias=True, exclude_unset=True)
        await self._pipes.write(data.encode() + b"\n")

    async def aclose(self) -> None:
        """The pipe is closed by `stop`, after the last message."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
