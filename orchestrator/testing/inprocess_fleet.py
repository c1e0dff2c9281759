"""A fleet in this process and in memory: accepts, runs at once, remembers. For tests of doors.

Keeps the promises that doors rely on (idempotency keys, chosen ids, tenants, events, cancel) and
none of the fleet's own: nothing is durable, placed, retried or checked against a schema.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace

from tasks.clock import Clock, SystemClock
from tasks.errors import IdempotencyConflict, NotFound, UnknownTool
from tasks.ids import new_id
from tasks.invocation import TERMINAL, Attempt, Call, Invocation, Lane, Principal, State
from tasks.outcome import ErrorInfo, Failure, Outcome
from tasks.tool import ToolSpec
from tasks.wire import EventView, ExplainView, ToolView

Progress = Callable[[float, float | None, str | None], None]
Run = Callable[[Call, Progress], Awaitable[str]]
"""Runs a call and returns its CallToolResult as JSON text."""


class ToolFailed(Exception):
    """Raised by a `Run` for a call that ends without a result."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.info = ErrorInfo(code, message, Failure.PERMANENT)


class InProcessFleet:
    """Satisfies the doors' Fleet."""

    def __init__(self, specs: Sequence[ToolSpec], run: Run, clock: Clock | None = None) -> None:
        self._specs = {spec.name: spec for spec in specs}
        self._run = run
        self._clock = clock or SystemClock()
        self._known: dict[str, Invocation] = {}
        self._by_key: dict[tuple[str, str], str] = {}
        self._events: dict[str, list[EventView]] = {}
        self._told: dict[str, asyncio.Event] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self.tools_version = 1

    def set_tools(self, specs: Sequence[ToolSpec]) -> None:
        """Offer other tools from now on."""
        self._specs = {spec.name: spec for spec in specs}
        self.tools_version += 1

    def states(self) -> dict[str, State]:
        """Every Invocation and its state, for assertions."""
        return {key: invocation.state for key, invocation in self._known.items()}

    async def accept(self, calls: Sequence[Call], principal: Principal) -> list[Invocation]:
        """Accept and start."""
        return [self._accept(call, principal) for call in calls]

    async def get(self, invocation_id: str, principal: Principal) -> Invocation:
        """Raises NotFound, also for another tenant's."""
        invocation = self._known.get(invocation_id)
        if invocation is None or invocation.principal.tenant != principal.tenant:
            raise NotFound("invocation", invocation_id)
        return invocation

    async def wait(self, invocation_id: str, principal: Principal, timeout_s: float | None) -> Invocation:
        """When it ended, or as it stands."""
        await self.get(invocation_id, principal)
        try:
            async with asyncio.timeout(timeout_s):
                while (found := self._known[invocation_id]).state not in TERMINAL:
                    await self._told[invocation_id].wait()
        except TimeoutError:
            found = self._known[invocation_id]
        return found

    async def result_json(self, invocation: Invocation) -> str | None:
        """The result, if there is one."""
        return invocation.outcome.result_json if invocation.outcome else None

    async def cancel(self, invocation_id: str, principal: Principal) -> Invocation:
        """Stop it, unless it ended."""
        invocation = await self.get(invocation_id, principal)
        if invocation.state not in TERMINAL:
            task = self._running.get(invocation_id)
            if task is not None:
                task.cancel()
            self._end(invocation_id, State.CANCELLED, Outcome("cancelled"))
        return self._known[invocation_id]

    async def explain(self, invocation_id: str, principal: Principal) -> ExplainView:
        """Where it ran."""
        invocation = await self.get(invocation_id, principal)
        return ExplainView(
            id=invocation_id, state=invocation.state, summary="runs in this process", reasons=[], attempts=[]
        )

    async def events(self, invocation_id: str, principal: Principal) -> AsyncIterator[EventView]:
        """History, then live."""
        await self.get(invocation_id, principal)
        seen = 0
        while True:
            events = self._events[invocation_id]
            for event in events[seen:]:
                yield event
                if event.kind == "ended":
                    return
            seen = len(events)
            if len(self._events[invocation_id]) == seen:
                await self._told[invocation_id].wait()

    def tools(self, principal: Principal) -> list[ToolView]:  # noqa: ARG002 - everyone sees all
        """Every tool."""
        return [_view(spec) for spec in self._specs.values()]

    def tool(self, name: str) -> ToolSpec | None:
        """One tool."""
        return self._specs.get(name)

    def _accept(self, call: Call, principal: Principal) -> Invocation:
        if call.tool not in self._specs:
            raise UnknownTool(call.tool, sorted(self._specs))
        key = (principal.tenant, call.idempotency_key or "")
        if call.idempotency_key is not None and key in self._by_key:
            return self._repeated(self._known[self._by_key[key]], call)
        invocation_id = call.invocation_id or new_id(self._clock.wall_s())
        if invocation_id in self._known:
            raise IdempotencyConflict(call.idempotency_key or "", invocation_id)
        self._by_key[key] = invocation_id
        spec = self._specs[call.tool]
        invocation = Invocation(
            id=invocation_id,
            call=call,
            principal=principal,
            lane=call.lane or spec.lane,
            state=State.WAITING,
            accepted_at=self._clock.wall_s(),
        )
        self._known[invocation_id] = invocation
        self._told[invocation_id] = asyncio.Event()
        self._events[invocation_id] = []
        self._tell(invocation_id, "accepted")
        if call.not_before is None or call.not_before <= self._clock.wall_s():
            self._running[invocation_id] = asyncio.create_task(self._follow(invocation_id))
        return invocation

    @staticmethod
    def _repeated(old: Invocation, call: Call) -> Invocation:
        said = (call.tool, call.arguments_json, call.project)
        if (old.call.tool, old.call.arguments_json, old.call.project) != said:
            raise IdempotencyConflict(call.idempotency_key or "", old.id)
        return old

    async def _follow(self, invocation_id: str) -> None:
        invocation = self._known[invocation_id]
        now_s = self._clock.wall_s()
        attempt = Attempt(invocation_id, 1, "here", "i1", "default", Lane.TOOLS, "none", now_s, now_s)
        self._known[invocation_id] = replace(invocation, state=State.RUNNING, fence=1, tries=1, attempts=(attempt,))
        self._tell(invocation_id, "running", node="here")

        def on_progress(progress: float, total: float | None, message: str | None) -> None:
            self._tell(invocation_id, "progress", progress=progress, total=total, message=message)

        try:
            result = await self._run(invocation.call, on_progress)
        except ToolFailed as failure:
            self._end(invocation_id, State.FAILED, Outcome("failed", error=failure.info))
        except asyncio.CancelledError:
            raise
        except Exception as failure:  # noqa: BLE001 - top of a task: the tool's own mistake is its answer
            info = ErrorInfo("internal", repr(failure), Failure.PERMANENT)
            self._end(invocation_id, State.FAILED, Outcome("failed", error=info))
        else:
            self._end(invocation_id, *_ending(result))

    def _end(self, invocation_id: str, state: State, outcome: Outcome) -> None:
        self._running.pop(invocation_id, None)
        self._known[invocation_id] = replace(
            self._known[invocation_id], state=state, outcome=outcome, ended_at=self._clock.wall_s()
        )
        self._tell(invocation_id, "ended", state=str(state))

    def _tell(self, invocation_id: str, kind: str, **data: object) -> None:
        self._events[invocation_id].append(EventView(kind=kind, at=self._clock.wall_s(), data=data))
        self._told[invocation_id].set()
        self._told[invocation_id] = asyncio.Event()


def _ending(result: str) -> tuple[State, Outcome]:
    """As settling does: a result with `isError` is an answer, and a failure."""
    if '"isError":true' in result.replace(" ", ""):
        info = ErrorInfo("tool_error", "the tool said isError", Failure.TOOL_ERROR)
        return State.FAILED, Outcome("failed", result, error=info)
    return State.SUCCEEDED, Outcome("succeeded", result)


def _view(spec: ToolSpec) -> ToolView:
    return ToolView(
        name=spec.name,
        title=spec.definition.get("title"),
        description=spec.definition.get("description"),
        lane=spec.lane,
        is_safe=spec.is_safe,
        timeout_s=spec.timeout_s,
        pools=["default"],
        nodes=1,
        policy=spec.policy,
        definition=spec.definition,
    )
