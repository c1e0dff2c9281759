"""Calls that were told to stop, until their tools have stopped: by themselves, or with their process group.

`notifications/cancelled` is a request and no more, and most servers do not answer a request that was
cancelled, whether its tool stopped or not. So after the notification a tool has a grace in which its
server may answer; then its session is to end, and with it the process and everything it started. It
takes no new calls from then on. Calls beside it have a bounded time to finish, for ending one must not
make another's effect unknown; what is still there then fails as `connection_lost`. Until all of that is
over the cancelled call does not return, so its slot stays taken and no other call can be hit.

Owns the waiting; `remote.py` ends the session, `pipes.py` the process. Refuses servers over HTTP: there
is no process of ours to end, they are told and that is all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, TypeVar

import structlog

from tasks.outcome import Failure
from worker.upstreams.errors import UpstreamError

log = structlog.get_logger()
T = TypeVar("T")


class _Call:
    """One call on its way through the SDK."""

    def __init__(self) -> None:
        self.number: object = None
        """Its JSON-RPC id, once it was written."""
        self.is_over = asyncio.Event()
        """Its answer came, or nothing can come any more."""
        self.is_overdue = False


_CALL: ContextVar[_Call | None] = ContextVar("mcpfleet_call", default=None)
"""The SDK writes a request in the task of its caller, and gives the id to nobody."""


class Stops:
    """Of one session.

    Args:
        name: of the server.
        is_ours: whether its process is ours to end.
        neighbours_s: seconds that calls beside an overdue one get.
        gone_s: above the seconds that ending a process takes.
        wake: tells the session's owner to look at `why`.
    """

    def __init__(
        self, name: str, *, is_ours: bool, neighbours_s: float, gone_s: float, wake: Callable[[], None]
    ) -> None:
        self.why: str | None = None
        """Why the session is to end."""
        self._name, self._is_ours, self._wake = name, is_ours, wake
        self._neighbours_s, self._gone_s = neighbours_s, gone_s
        self._calls: set[_Call] = set()
        self._by_number: dict[object, _Call] = {}
        self._news = asyncio.Event()
        self._is_gone = asyncio.Event()

    async def follow(self, tool: str, sending: Coroutine[Any, Any, T], grace_s: Callable[[], float]) -> T:
        """Await a call; where it is cancelled, until its tool has stopped or its process is gone.

        Args:
            tool: for people.
            sending: sends it and answers; tells the server when it is cancelled.
            grace_s: seconds its tool has, once told; 0 trusts it to stop.
        """
        if not self._is_ours:
            return await sending
        call = _Call()
        token = _CALL.set(call)
        self._calls.add(call)
        try:
            return await sending
        except asyncio.CancelledError:
            if call.number is not None:
                await _to_its_end(self._stopped(call, tool, grace_s()))
            raise
        except UpstreamError as error:
            if error.info.failure is Failure.MAYBE_STARTED:
                await self._gone()
            raise
        finally:
            _CALL.reset(token)
            self._forget(call)

    async def neighbours(self) -> None:
        """Until every call has ended or is overdue; bounded."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._neighbours_s):
                while any(not call.is_overdue for call in self._calls):
                    self._news.clear()
                    await self._news.wait()

    def gone(self) -> None:
        """The session is over, and the process with it."""
        self._is_gone.set()
        for call in self._calls:
            call.is_over.set()

    def sent(self, number: object) -> None:
        """A request of that id is being written."""
        call = _CALL.get()
        if call is not None and call.number is None:
            call.number = number
            self._by_number[number] = call

    def answered(self, number: object) -> None:
        """An answer to that id came."""
        call = self._by_number.get(number)
        if call is not None:
            call.is_over.set()

    async def _stopped(self, call: _Call, tool: str, grace_s: float) -> None:
        if grace_s <= 0:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await call.is_over.wait()
                return
        call.is_overdue = True
        self._news.set()
        if self.why is None:
            self.why = f"{self._name}.{tool} had not stopped {grace_s:g} s after it was told to"
            log.warning("tool_did_not_stop", server=self._name, tool=tool, effect="its process is ended")
            self._wake()
        await call.is_over.wait()

    async def _gone(self) -> None:
        """A session that ended says so before its process is gone: what ran in it may run on until then."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._gone_s):
                await self._is_gone.wait()

    def _forget(self, call: _Call) -> None:
        self._calls.discard(call)
        self._by_number.pop(call.number, None)
        self._news.set()


async def _to_its_end(waiting: Coroutine[Any, Any, None]) -> None:
    """A second cancellation (a deadline, a drain) changes nothing: the tool still runs."""
    task = asyncio.create_task(waiting)
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.shield(task)
    task.result()
