"""tools/call: accept, wait, answer. Passes progress on, and cancels what its client abandoned.

Refuses to know HTTP: who calls and what came with it is an `Asked`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import anyio
import structlog

from orchestrator.front.faults import MENDABLE, answer_of, refused, tool_error
from orchestrator.front.meta import make_call
from orchestrator.front.ports import Fleet
from tasks.clock import Clock
from tasks.errors import FleetError
from tasks.invocation import TERMINAL, Call, Invocation, Principal
from tasks.telemetry import bind_trace

log = structlog.get_logger()

Progress = Callable[[float, float | None, str | None], Awaitable[None]]


RequestKey = tuple[str, str | int]
"""Session and JSON-RPC id of a request of the handshake era."""


class Asking(Protocol):
    """What a run asks while its client waits."""

    is_due: asyncio.Event

    def asked(self, approval_id: str) -> None: ...
    def answered(self, approval_id: str) -> None: ...
    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Asked:
    """One tools/call request, whichever way it came."""

    tool: str
    """The fleet's name of it."""
    params: Mapping[str, Any]
    principal: Principal
    headers: Mapping[str, str] = field(default_factory=dict)
    on_progress: Progress | None = None
    request: RequestKey | None = None
    """By which its client may cancel it with a notification."""
    questions: Asking | None = None
    """Where the client's user can be asked what the run asks."""


class Refused(Exception):
    """The call was not accepted, and the model should see why."""

    def __init__(self, result: dict[str, Any]) -> None:
        super().__init__(result)
        self.result = result


class ToolCalls:
    """Calls through the fleet."""

    def __init__(self, fleet: Fleet, clock: Clock, *, abandon_timeout_s: float) -> None:
        self._fleet = fleet
        self._clock = clock
        self._abandon_timeout_s = abandon_timeout_s
        self._is_leaving = False
        self._open: dict[RequestKey, str] = {}

    def leave_calls_running(self) -> None:
        """From now on a request that ends early is our own shutdown, not a client that gave up."""
        self._is_leaving = True

    async def accept(self, asked: Asked) -> Invocation:
        """Durable when it returns.

        Raises:
            Refused: the arguments are wrong in a way that a model can mend.
            MCPError: anything else is wrong.
        """
        call = make_call(asked.tool, asked.params, asked.headers, now_s=self._clock.wall_s())
        return await self.accept_call(call, asked.principal)

    async def accept_call(self, call: Call, principal: Principal) -> Invocation:
        """As `accept`, for a `Call` made already."""
        try:
            # Shielded: half-way, nobody would know whether there is something to cancel.
            with anyio.CancelScope(shield=True):
                accepted = await self._fleet.accept([call], principal)
        except MENDABLE as error:
            raise Refused(tool_error(error.message)) from error
        except FleetError as error:
            raise refused(error) from error
        bind_trace(accepted[0].call.trace_id, invocation_id=accepted[0].id)  # this request's task, and its alone
        return accepted[0]

    async def finish(self, invocation: Invocation, asked: Asked, *, window_s: float | None = None) -> Invocation:
        """The Invocation when it ended, or as it stands when `window_s` is over or its client is to be asked.

        Cancelled while it waits, it cancels the Invocation too.
        """
        if invocation.state in TERMINAL:
            return invocation
        if asked.request is not None:
            self._open[asked.request] = invocation.id
        pump = None
        if asked.on_progress is not None or asked.questions is not None:
            pump = asyncio.create_task(self._pump(invocation.id, asked))
        try:
            ended = await self._ended_or_asked(invocation, asked, window_s)
            if pump is not None and ended.state in TERMINAL:
                # Its last progress comes before the result, or after a second not at all.
                await asyncio.wait({pump}, timeout=1.0)
        except asyncio.CancelledError:
            await self._abandon(invocation.id, asked.principal)
            raise
        finally:
            if pump is not None:
                pump.cancel()
            if asked.questions is not None:
                await asked.questions.close()
            if asked.request is not None:
                self._open.pop(asked.request, None)
        return ended

    async def cancel_request(self, request: RequestKey, principal: Principal) -> None:
        """Cancel what this replica waits for under that request; nothing if it does not."""
        invocation_id = self._open.get(request)
        if invocation_id is not None:
            await self._cancel(invocation_id, principal)

    async def answer(self, invocation: Invocation) -> dict[str, Any]:
        """The content of an Invocation that ended.

        Raises:
            MCPError: it ended without a result.
        """
        return answer_of(invocation, await self._fleet.result_json(invocation))

    async def _ended_or_asked(self, invocation: Invocation, asked: Asked, window_s: float | None) -> Invocation:
        if asked.questions is None:
            return await self._fleet.wait(invocation.id, asked.principal, window_s)
        ending = asyncio.create_task(self._fleet.wait(invocation.id, asked.principal, window_s))
        due = asyncio.create_task(asked.questions.is_due.wait())
        try:
            await asyncio.wait({ending, due}, return_when=asyncio.FIRST_COMPLETED)
            return ending.result() if ending.done() else await self._fleet.get(invocation.id, asked.principal)
        finally:
            ending.cancel()
            due.cancel()
            await asyncio.gather(ending, due, return_exceptions=True)

    async def _pump(self, invocation_id: str, asked: Asked) -> None:
        try:
            async for event in self._fleet.events(invocation_id, asked.principal):
                data = event.data
                if event.kind == "progress" and asked.on_progress is not None:
                    await asked.on_progress(data["progress"], data.get("total"), data.get("message"))
                elif event.kind == "asked" and asked.questions is not None:
                    asked.questions.asked(data["approval"])
                elif event.kind == "answered" and asked.questions is not None:
                    asked.questions.answered(data["approval"])
                elif event.kind == "ended":
                    return
        except Exception:  # top of a task: progress is a courtesy, the call goes on without it
            log.exception("progress_lost", invocation=invocation_id)

    async def _abandon(self, invocation_id: str, principal: Principal) -> None:
        if self._is_leaving:
            return
        log.info("call_abandoned", invocation=invocation_id)
        with anyio.CancelScope(shield=True), anyio.move_on_after(self._abandon_timeout_s):
            await self._cancel(invocation_id, principal)

    async def _cancel(self, invocation_id: str, principal: Principal) -> None:
        try:
            await self._fleet.cancel(invocation_id, principal)
        except FleetError as error:
            log.warning("call_not_cancelled", invocation=invocation_id, code=error.code)
