"""The Python client: `Fleet` blocks, `AsyncFleet` awaits. Both run tasks/client/flows.py.

    fleet = Fleet()                                   # the local fleet, or MCPFLEET_URL
    print(fleet.call("time.get_current_time", {"timezone": "UTC"}).text)

Each method below is made of one flow, with its signature, by the four functions at the end of the
imports; a type checker sees `call(tool, arguments=None, /, *, project=…, …) -> ToolResult`.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import TracebackType
from typing import Concatenate, ParamSpec, Self, TypeVar

import httpx

from tasks.client import flows
from tasks.client.answers import error_of
from tasks.client.events import EventReader, progress_of
from tasks.client.exchange import Core, Flow
from tasks.client.results import Progress, ToolResult
from tasks.client.settings import ClientSettings, find
from tasks.client.transport import Awaiting, Blocking, stream_timeout
from tasks.errors import FleetError
from tasks.wire import EventView, InvocationView

P = ParamSpec("P")
T = TypeVar("T")


def _blocks(flow: Callable[Concatenate[Core, P], Flow[T]]) -> Callable[Concatenate[Fleet, P], T]:
    @functools.wraps(flow)
    def method(self: Fleet, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._http.run(flow(self._core, *args, **kwargs))

    return method


def _awaits(flow: Callable[Concatenate[Core, P], Flow[T]]) -> Callable[Concatenate[AsyncFleet, P], Awaitable[T]]:
    @functools.wraps(flow)
    async def method(self: AsyncFleet, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._http.run(flow(self._core, *args, **kwargs))

    return method


def _handle_blocks(flow: Callable[Concatenate[Core, str, P], Flow[T]]) -> Callable[Concatenate[Handle, P], T]:
    @functools.wraps(flow)
    def method(self: Handle, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._fleet._http.run(flow(self._fleet._core, self.id, *args, **kwargs))  # noqa: SLF001 - one client

    return method


def _handle_awaits(
    flow: Callable[Concatenate[Core, str, P], Flow[T]],
) -> Callable[Concatenate[AsyncHandle, P], Awaitable[T]]:
    @functools.wraps(flow)
    async def method(self: AsyncHandle, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._fleet._http.run(flow(self._fleet._core, self.id, *args, **kwargs))  # noqa: SLF001

    return method


def _gives_handle(
    flow: Callable[Concatenate[Core, P], Flow[InvocationView]],
) -> Callable[Concatenate[Fleet, P], Handle]:
    @functools.wraps(flow)
    def method(self: Fleet, /, *args: P.args, **kwargs: P.kwargs) -> Handle:
        return Handle(self, self._http.run(flow(self._core, *args, **kwargs)).id)

    return method


def _awaits_handle(
    flow: Callable[Concatenate[Core, P], Flow[InvocationView]],
) -> Callable[Concatenate[AsyncFleet, P], Awaitable[AsyncHandle]]:
    @functools.wraps(flow)
    async def method(self: AsyncFleet, /, *args: P.args, **kwargs: P.kwargs) -> AsyncHandle:
        return AsyncHandle(self, (await self._http.run(flow(self._core, *args, **kwargs))).id)

    return method


class Handle:
    """One accepted Invocation. Keeping only `id` is enough: `fleet.handle(id)` makes another."""

    def __init__(self, fleet: Fleet, invocation_id: str) -> None:
        self._fleet, self.id = fleet, invocation_id

    result = _handle_blocks(flows.result)
    cancel = _handle_blocks(flows.cancel)
    explain = _handle_blocks(flows.explain)
    state = _handle_blocks(flows.state)
    show = _handle_blocks(flows.show)

    def events(self) -> Iterator[EventView]:
        """Everything that happened to it, then what happens, until it ended."""
        return self._fleet._events(self.id)  # noqa: SLF001

    def progress(self) -> Iterator[Progress]:
        """The tool's progress, until it ended. What came before is not repeated."""
        return (found for event in self.events() if (found := progress_of(event)) is not None)

    def __repr__(self) -> str:
        return f"Handle({self.id!r})"


class AsyncHandle:
    """One accepted Invocation. Keeping only `id` is enough: `fleet.handle(id)` makes another."""

    def __init__(self, fleet: AsyncFleet, invocation_id: str) -> None:
        self._fleet, self.id = fleet, invocation_id

    result = _handle_awaits(flows.result)
    cancel = _handle_awaits(flows.cancel)
    explain = _handle_awaits(flows.explain)
    state = _handle_awaits(flows.state)
    show = _handle_awaits(flows.show)

    def events(self) -> AsyncIterator[EventView]:
        """Everything that happened to it, then what happens, until it ended."""
        return self._fleet._events(self.id)  # noqa: SLF001

    async def progress(self) -> AsyncIterator[Progress]:
        """The tool's progress, until it ended. What came before is not repeated."""
        async for event in self.events():
            if (found := progress_of(event)) is not None:
                yield found

    def __repr__(self) -> str:
        return f"AsyncHandle({self.id!r})"


class Fleet:
    """A fleet, from code that blocks. Threads may share one; so may forked processes."""

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        settings: ClientSettings | None = None,
        core: Core | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        found = settings or find(url, token)
        self.url = found.url
        self._http = Blocking(found, transport)
        self._core = core or Core(found.url)

    call = _blocks(flows.call)
    map = _blocks(flows.map_tool)
    tools = _blocks(flows.tools)
    nodes = _blocks(flows.nodes)
    submit = _gives_handle(flows.submit)
    _gather = _blocks(flows.gather)

    def handle(self, invocation_id: str) -> Handle:
        """Of an Invocation accepted before."""
        return Handle(self, invocation_id)

    def gather(
        self, *handles: Handle, return_exceptions: bool = False, timeout_s: float | None = None
    ) -> list[ToolResult | FleetError]:
        """All results, in this order, over one connection. As `asyncio.gather`."""
        ids = [handle.id for handle in handles]
        return self._gather(ids, return_exceptions=return_exceptions, timeout_s=timeout_s)

    def _events(self, invocation_id: str) -> Iterator[EventView]:
        reader = EventReader(self._core)
        while not reader.is_over:
            with reader.connection():
                for line in self._lines(invocation_id, reader):
                    event = reader.feed(line)
                    if event is not None:
                        yield event
            time.sleep(reader.pause_s())

    def _lines(self, invocation_id: str, reader: EventReader) -> Iterator[str]:
        path, headers = f"{flows.path_of(invocation_id)}/events", reader.headers()
        with self._http.client.stream("GET", path, headers=headers, timeout=stream_timeout()) as answer:
            if answer.is_error:
                raise error_of(answer.status_code, answer.read(), self.url)
            yield from answer.iter_lines()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class AsyncFleet:
    """A fleet, from code that awaits. Belongs to the event loop it is first used in."""

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        settings: ClientSettings | None = None,
        core: Core | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        found = settings or find(url, token)
        self.url = found.url
        self._http = Awaiting(found, transport)
        self._core = core or Core(found.url)

    call = _awaits(flows.call)
    map = _awaits(flows.map_tool)
    tools = _awaits(flows.tools)
    nodes = _awaits(flows.nodes)
    submit = _awaits_handle(flows.submit)
    _gather = _awaits(flows.gather)

    def handle(self, invocation_id: str) -> AsyncHandle:
        """Of an Invocation accepted before."""
        return AsyncHandle(self, invocation_id)

    async def gather(
        self, *handles: AsyncHandle, return_exceptions: bool = False, timeout_s: float | None = None
    ) -> list[ToolResult | FleetError]:
        """All results, in this order, over one connection. As `asyncio.gather`."""
        ids = [handle.id for handle in handles]
        return await self._gather(ids, return_exceptions=return_exceptions, timeout_s=timeout_s)

    async def _events(self, invocation_id: str) -> AsyncIterator[EventView]:
        reader = EventReader(self._core)
        while not reader.is_over:
            with reader.connection():
                async for line in self._lines(invocation_id, reader):
                    event = reader.feed(line)
                    if event is not None:
                        yield event
            await asyncio.sleep(reader.pause_s())

    async def _lines(self, invocation_id: str, reader: EventReader) -> AsyncIterator[str]:
        path, headers = f"{flows.path_of(invocation_id)}/events", reader.headers()
        async with self._http.client.stream("GET", path, headers=headers, timeout=stream_timeout()) as answer:
            if answer.is_error:
                raise error_of(answer.status_code, await answer.aread(), self.url)
            async for line in answer.aiter_lines():
                yield line

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.close()
