"""One session with a server, from its start to its end: its transport, its alarms, what is heard on it.

Owns no decision: `remote.py` starts it, watches it and ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

import structlog
from mcp import Client
from mcp.client._transport import Transport
from mcp.client.session import IncomingMessage
from mcp_types import Implementation, ToolListChangedNotification
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from tasks.clock import Clock
from worker.upstreams.forwarding import Forwarding
from worker.upstreams.pulse import Pulse
from worker.upstreams.stopping import Stops
from worker.upstreams.upstream import Alarm

log = structlog.get_logger()
ERROR_CHARS = 500
OUTDATED_BUSY_S = 60.0
"""A session that is to be begun anew waits so long for a moment without calls; then it takes no more of them."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one server may take. Seconds and bytes."""

    start_s: float = 30.0
    """From starting the process to its tools being listed."""
    health_every_s: float = 30.0
    """An idle server is checked this often; HTTP servers need it to notice changed tools too."""
    health_answer_s: float = 10.0
    """For the whole of a check: an answer, and the tools listed."""
    recheck_s: float = 1.0
    """After a bad check, and until it is healthy again, the next one follows this soon."""
    beat_every_s: float = 10.0
    """While calls run, one heartbeat this often; the next one only when the last was answered."""
    silence_s: float = 300.0
    """A server that answers heartbeats during a tool, and then is silent for so long in it, is given up."""
    result_bytes: int = 16_000_000
    close_s: float = 10.0
    """Above the sum of the waits of a process that has to be killed."""
    stop_s: float = 5.0
    """A tool that was told to stop has so long, unless it declares another time."""
    neighbours_s: float = 30.0
    """When a tool has not stopped, calls beside it get so long before their process is ended."""


class Link(Transport, Protocol):
    """A transport that can say what it knows of its end."""

    kind: str

    def kill(self) -> None:
        """At once, without waiting."""
        ...

    def outage(self) -> str | None:
        """What kept the server from answering at some time of the session."""
        ...

    def why_ended(self, error: BaseException | None, /) -> str | None:
        """For people; None when it knows nothing."""
        ...


MakeLink = Callable[[Alarm], Link]


class ServerEnded(Exception):
    """The session is over; the message says why, for people."""


class ServerUnwell(ServerEnded):
    """We end it: it failed its checks, or nothing was heard of it while calls ran."""


class NotStopped(ServerEnded):
    """We end it: a tool was told to stop and did not."""


class Life:
    """One session."""

    def __init__(self, name: str, make_link: MakeLink, *, limits: Limits, proven: set[str], clock: Clock) -> None:
        self._clock = clock
        self.wake = asyncio.Event()
        self.is_down = self.wants_list = self.is_ready = self.was_ready = False
        self.pulse = Pulse(clock.mono_s(), every_s=limits.beat_every_s, default_limit_s=limits.silence_s, proven=proven)
        self.check_at_s = 0.0
        """Monotonic time of the next check."""
        self.bad_checks = 0
        """In a row, of this session."""
        self.outdated: str | None = None
        """Why it is to be begun anew, between calls."""
        self._outdated_since_s = 0.0
        self.silence: str | None = None
        """Why it was given up while calls ran on it."""
        self.beat: asyncio.Task[None] | None = None
        """The heartbeat that was sent last."""
        self.client: Client | None = None
        self.link = make_link(self)
        self.stops = Stops(
            name,
            is_ours=self.link.kind == "stdio",
            neighbours_s=limits.neighbours_s,
            gone_s=limits.close_s,
            wake=self.wake.set,
        )

    def down(self) -> None:
        """It is gone."""
        self.is_down = True
        self.wake.set()

    def changed(self) -> None:
        """Its tools may be others."""
        self.wants_list = True
        self.wake.set()

    def begin_anew(self, why: str) -> None:
        """As soon as no call runs."""
        if self.outdated is None:
            self.outdated, self._outdated_since_s = why, self._clock.mono_s()
            self.wake.set()

    def why_to_end(self) -> str | None:
        """Why we end it now, though nothing is wrong with the server."""
        if self.stops.why is None and self.outdated is not None and self.pulse.flights:
            is_over = self._clock.mono_s() - self._outdated_since_s > OUTDATED_BUSY_S
            return self.outdated if is_over else None
        return self.stops.why or self.outdated

    async def part(self) -> None:
        """Until the calls that run have ended; bounded where a tool that was told to stop is among them."""
        while self.pulse.flights and not self.is_down and self.stops.why is None:
            await self.wake.wait()
            self.wake.clear()
        if self.stops.why is not None:
            await self.stops.neighbours()

    def heard(self) -> None:
        """It said something."""
        self.pulse.heard(self._clock.mono_s())

    async def rest(self) -> None:
        """Until something happened, or the next look is due."""
        now_s, tick_s = self._clock.mono_s(), self.pulse.tick_s
        pause_s = tick_s if self.pulse.flights else min(tick_s, max(0.0, self.check_at_s - now_s))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self.wake.wait()
        self.wake.clear()

    def said(self, cause: BaseException, start_s: float) -> str:
        """Why it ended, for people."""
        if isinstance(cause, TimeoutError):
            said, note = f"did not answer within {start_s:g} s", self.link.why_ended(cause)
            return f"{said}; {note}" if note else said
        if isinstance(cause, ServerUnwell | NotStopped):
            return str(cause)
        return self.link.why_ended(cause) or str(cause) or type(cause).__name__

    def client_for(self, mode: str, client_info: Implementation) -> Client:
        """The SDK's client over this session's transport, not entered."""

        async def on_message(message: IncomingMessage) -> None:
            if isinstance(message, ToolListChangedNotification):
                self.changed()

        transport = Forwarding(self.link, self.heard, self.stops)
        return Client(transport, mode=mode, cache=None, message_handler=on_message, client_info=client_info)


@contextlib.asynccontextmanager
async def listening(life: Life) -> AsyncIterator[None]:
    """A 2026-07-28 server says that its tools changed only on a stream that was asked for."""
    client = life.client
    assert client is not None
    tools = client.server_capabilities.tools
    if client.protocol_version not in MODERN_PROTOCOL_VERSIONS or tools is None or not tools.list_changed:
        yield
        return
    task = asyncio.create_task(_listen(client, life))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _listen(client: Client, life: Life) -> None:
    try:
        async with client.listen(tools_list_changed=True) as subscription:
            async for _ in subscription:
                life.changed()
    except Exception as error:
        log.info("server_listen_ended", error=str(error)[:ERROR_CHARS], exc_info=True)


async def rest(wait_s: float, *, unless: asyncio.Event) -> None:
    """Until the time is over, or that is set."""
    unless.clear()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(wait_s):
            await unless.wait()


def first_cause(error: BaseException) -> BaseException:
    """Of a group, which the SDK makes of one failure."""
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    return error
