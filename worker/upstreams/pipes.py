"""The pipes of one server process, as callbacks of the event loop: no task, no rendezvous per message.

Owns the bounds on what a process may write, and the order in which it is ended. Closing: stdin is
closed, the process has `GRACE_S` to exit, then its group gets SIGTERM, and after `TERM_S` SIGKILL. A
process that left the group (a daemon) escapes, by its own design.
Source: MCP 2025-11-25, basic/lifecycle, shutdown.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import anyio
import structlog
from mcp.shared.message import SessionMessage
from mcp_types import INTERNAL_ERROR, ErrorData, JSONRPCError, jsonrpc_message_adapter

from tasks.outcome import Failure
from worker.upstreams.errors import Fault
from worker.upstreams.lines import LineCutter, Oversize, StderrLog

log = structlog.get_logger()

GRACE_S = 2.0
TERM_S = 2.0
KILL_S = 2.0
POLL_S = 0.01
LAST_WORDS_S = 0.2
"""After the process has exited, its pipe may still hold answers; a grandchild may hold it open for ever."""
INBOX_BYTES = 4_000_000
"""Unread answers past this pause the server's stdout."""
STDERR_BYTES_PER_S = 1_000_000
"""A server that floods stderr is made to wait, so that it cannot take the node's event loop."""
JUNK_LINES_MAX = 1000
"""So many lines that are not JSON-RPC, with no message between them, and the server is given up."""
ENDLESS_FACTOR = 16
"""A line this many times over the limit is no answer any more, and the server is given up."""
MESSAGE_SLACK_BYTES = 4096
"""Room for the JSON-RPC frame around a result."""
JUNK_CHARS = 120


class Pipes(asyncio.SubprocessProtocol):
    """Callbacks of the event loop; no task of its own."""

    def __init__(self, stderr: StderrLog, *, limit_bytes: int, on_down: Callable[[], None]) -> None:
        self._stderr, self._limit_bytes, self._on_down = stderr, limit_bytes, on_down
        self._cutter = LineCutter(limit_bytes + MESSAGE_SLACK_BYTES)
        self._queue: deque[tuple[bytes | Oversize, int]] = deque()
        self._queued_bytes = 0
        self._reader: asyncio.Future[None] | None = None
        self._writers: list[asyncio.Future[None]] = []
        self._process: asyncio.SubprocessTransport | None = None
        self._is_write_paused = self._is_read_paused = self._is_stderr_paused = False
        self._stderr_bytes = 0
        self._stderr_since_s = 0.0
        self.is_closed = self._has_exited = self._is_stopping = self._ended_itself = self._was_killed = False
        self._exit_code: int | None = None
        self._junk, self._is_endless = 0, False
        self._junk_sample = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Started."""
        assert isinstance(transport, asyncio.SubprocessTransport) or hasattr(transport, "get_pipe_transport")
        self._process = transport  # type: ignore[assignment]

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Stdout is messages, stderr is log."""
        if fd != 1:
            self._take_stderr(data)
            return
        if self.is_closed:
            return
        for line in self._cutter.feed(data):
            size = line.size_bytes if isinstance(line, Oversize) else len(line)
            self._queue.append((line, min(size, self._limit_bytes)))
            self._queued_bytes += min(size, self._limit_bytes)
        if self._cutter.size_bytes > ENDLESS_FACTOR * self._limit_bytes:
            self._is_endless = True
            self.close_inbox()
        if self._queued_bytes > INBOX_BYTES and not self._is_read_paused:
            self._is_read_paused = True
            self._pause(1)
        if self._queue:
            self._wake_reader()

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's name
        """It closed a pipe."""
        if fd in (0, 1):
            self._ended_itself = self._ended_itself or not self._is_stopping
            self.close_inbox()

    def process_exited(self) -> None:
        """Its last words may still be in the pipe."""
        assert self._process is not None
        self._ended_itself = self._ended_itself or not self._is_stopping
        self._has_exited, self._exit_code = True, self._process.get_returncode()
        asyncio.get_running_loop().call_later(LAST_WORDS_S, self.close_inbox)

    def pause_writing(self) -> None:
        """Its stdin is full."""
        self._is_write_paused = True

    def resume_writing(self) -> None:
        """It reads again."""
        self._is_write_paused = False
        for future in self._writers:
            if not future.done():
                future.set_result(None)
        self._writers.clear()

    # -- for the session

    async def next_message(self) -> SessionMessage | None:
        """The next message, None at the end."""
        while True:
            while self._queue:
                line, size = self._queue.popleft()
                self._queued_bytes -= size
                if self._is_read_paused and self._queued_bytes < INBOX_BYTES // 2:
                    self._is_read_paused = False
                    self._resume(1)
                message = self._oversize(line) if isinstance(line, Oversize) else self._parse(line)
                if message is not None:
                    return message
            if self.is_closed:
                return None
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None

    async def write(self, data: bytes) -> None:
        """Hand bytes to the process; waits while its pipe is full."""
        while self._is_write_paused and not self.is_closed:
            future = asyncio.get_running_loop().create_future()
            self._writers.append(future)
            await future
        pipe = self._process.get_pipe_transport(0) if self._process is not None else None
        if self.is_closed or pipe is None or pipe.is_closing():  # `pipe_connection_lost` may still be to come
            raise anyio.ClosedResourceError
        pipe.write(data)  # type: ignore[attr-defined]

    def close_inbox(self) -> None:
        """No more messages will be taken; whoever waits is woken."""
        if self.is_closed:
            return
        self.is_closed = True
        self._wake_reader()
        self.resume_writing()
        self._on_down()

    def exit_note(self) -> str | None:
        """One sentence on how it ended, or on what it printed instead of speaking the protocol."""
        junk = f"its stdout is not JSON-RPC, it printed {self._junk_sample!r}" if self._junk_sample else None
        if self._is_endless:
            return f"it printed a line of more than {ENDLESS_FACTOR * self._limit_bytes} bytes"
        if self._ended_itself and self._was_killed:
            return "the process closed its pipes and did not exit" + (f"; {junk}" if junk else "")
        if self._ended_itself and self._has_exited:
            code = self._exit_code or 0
            how = f"was killed by signal {-code}" if code < 0 else f"exited with status {code}"
            return f"the process {how}" + (f"; {junk}" if junk else "")
        return junk

    def signal(self, number: int) -> bool:
        """To the whole process group; False when it is gone."""
        if self._process is None:
            return False
        # The leader's pid is the group's id. The leader may be reaped while members live on.
        try:
            os.killpg(self._process.get_pid(), number)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True

    async def stop(self) -> None:
        """End the process and its group; every wait is bounded."""
        if self._process is None:
            return
        self._is_stopping = True
        self.close_inbox()
        if self._is_read_paused:
            self._resume(1)
        stdin = self._process.get_pipe_transport(0)
        if stdin is not None:
            stdin.close()
        await self._wait(lambda: self._has_exited, GRACE_S)
        self._was_killed = not self._has_exited
        if self.signal(signal.SIGTERM):
            await self._wait(lambda: not self.signal(0), TERM_S)
            self.signal(signal.SIGKILL)
        # The group can be gone a moment before the loop is told.
        await self._wait(lambda: self._has_exited, KILL_S)
        if not self._has_exited:
            log.warning("server_process_survived", server=self._stderr.server, pid=self._process.get_pid())
        with suppress(PermissionError):
            self._process.close()

    # -- inside

    @staticmethod
    async def _wait(is_done: Callable[[], bool], limit_s: float) -> None:
        deadline = asyncio.get_running_loop().time() + limit_s
        # Whether a process group is gone can only be asked, not awaited.
        while not is_done() and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)

    def _parse(self, line: bytes) -> SessionMessage | None:
        try:
            message = jsonrpc_message_adapter.validate_json(line, by_name=False)
        except ValueError:
            if line.strip():
                self._count_junk(line)
            return None
        self._junk = 0
        return SessionMessage(message)

    def _count_junk(self, line: bytes) -> None:
        self._junk += 1
        if self._junk == 1:
            self._junk_sample = line[:JUNK_CHARS].decode("utf-8", "replace")
            log.warning("server_stdout_junk", server=self._stderr.server, sample=self._junk_sample)
        if self._junk >= JUNK_LINES_MAX:
            self._queue.clear()
            self.close_inbox()

    def _oversize(self, line: Oversize) -> SessionMessage | None:
        log.warning("server_line_too_long", server=self._stderr.server, size_bytes=line.size_bytes)
        if line.request_id is None:
            # Somebody waits for this answer and nobody can tell who: end the session, so that all learn.
            self.close_inbox()
            return None
        what = f"the answer is larger than {self._limit_bytes} bytes; let the tool write it to a file or page it"
        fault = Fault("result_too_large", what, Failure.PERMANENT)
        error = ErrorData(code=INTERNAL_ERROR, message=what, data=fault.data())
        return SessionMessage(JSONRPCError(jsonrpc="2.0", id=line.request_id, error=error))

    def _take_stderr(self, data: bytes) -> None:
        self._stderr.feed(data)
        now_s = asyncio.get_running_loop().time()
        if now_s - self._stderr_since_s > 1:
            self._stderr_since_s, self._stderr_bytes = now_s, 0
        self._stderr_bytes += len(data)
        if self._stderr_bytes > STDERR_BYTES_PER_S and not self._is_stderr_paused:
            self._is_stderr_paused = True
            self._pause(2)
            asyncio.get_running_loop().call_at(self._stderr_since_s + 1, self._resume_stderr)

    def _resume_stderr(self) -> None:
        self._is_stderr_paused, self._stderr_bytes = False, 0
        self._resume(2)

    def _pause(self, fd: int) -> None:
        pipe = self._process.get_pipe_transport(fd) if self._process is not None else None
        if pipe is not None and not pipe.is_closing():
            pipe.pause_reading()  # type: ignore[attr-defined]

    def _resume(self, fd: int) -> None:
        pipe = self._process.get_pipe_transport(fd) if self._process is not None else None
        if pipe is not None and not pipe.is_closing():
            pipe.resume_reading()  # type: ignore[attr-defined]

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
