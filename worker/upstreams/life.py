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

from worker.upstreams.forwarding import Forwarding
from worker.upstreams.stopping import Stops
from worker.upstreams.upstream import Alarm

log = structlog.get_logger()
ERROR_CHARS = 500


@dataclass(frozen=True, slots=True)
class Limits:
    """What one server may take. Seconds and bytes."""

    start_s: float = 30.0
    """From starting the process to its tools being listed."""
    health_every_s: float = 30.0
    """An idle server is asked for its tools this often; HTTP servers need it to notice changes too."""
    health_answer_s: float = 10.0
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


class NotStopped(ServerEnded):
    """We end it: a tool was told to stop and did not."""


class Life:
    """One session."""

    def __init__(self, name: str, make_link: MakeLink, *, limits: Limits) -> None:
        self.wake = asyncio.Event()
        self.is_down = self.wants_list = self.is_ready = self.was_ready = False
        self.in_flight = 0
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

    def client_for(self, mode: str, client_info: Implementation) -> Client:
        """The SDK's client over this session's transport, not entered."""

        async def on_message(message: IncomingMessage) -> None:
            if isinstance(message, ToolListChangedNotification):
                self.changed()

        transport = Forwarding(self.stops.overhear(self.link))
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
