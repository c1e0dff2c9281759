"""How the fake fleet runs a call: its dispatcher, its node and its settler in one."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from typing import Any

import orjson

from orchestrator.ledger.dead_values import DeadLetter
from orchestrator.testing.rows import Row, Rows
from orchestrator.testing.tools import FakeTool, ToolBroke
from tasks.clock import Clock
from tasks.ids import new_id
from tasks.invocation import TERMINAL, Attempt, Invocation, Lane, State
from tasks.outcome import ErrorInfo, Failure, Outcome
from tasks.retry import Again, RetryPolicy, next_attempt

NODE, POOL, QUEUE = "a", "main", "mcpfleet.n.a.tools"


class Runs:
    """One asyncio task per Invocation."""

    def __init__(self, rows: Rows, tools: Mapping[str, FakeTool], clock: Clock) -> None:
        self._rows, self._tools, self._clock = rows, tools, clock
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._others: set[asyncio.Task[None]] = set()
        self._resumed = asyncio.Event()

    async def close(self) -> None:
        """End all."""
        running = [*self._tasks.values(), *self._others]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def start(self, row: Row) -> None:
        """Run it as soon as it may."""
        self._tasks[row.invocation.id] = asyncio.create_task(self._run(row))

    def spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """A task that `close` ends too."""
        task = asyncio.create_task(work)
        self._others.add(task)
        task.add_done_callback(self._others.discard)
        return task

    async def pause(self, kind: str, name: str, *, is_paused: bool) -> None:
        """Nothing of it starts while paused."""
        (self._rows.paused.add if is_paused else self._rows.paused.discard)((kind, name))
        self._resumed.set()
        self._resumed = asyncio.Event()

    async def cancel(self, row: Row) -> None:
        """Stop it, wherever it is."""
        row.invocation = replace(row.invocation, cancel_requested=True)
        task = self._tasks[row.invocation.id]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if row.invocation.state not in TERMINAL:
            self._end(row, Outcome("cancelled"))

    async def _run(self, row: Row) -> None:
        call = row.invocation.call
        timeout_s = None if call.expires_at is None else call.expires_at - self._clock.wall_s()
        try:
            async with asyncio.timeout(timeout_s):
                await self._until_due(row)
                while (outcome := await self._attempt(row)) is None:
                    pass
        except TimeoutError:
            outcome = Outcome("expired", error=ErrorInfo("deadline", "the deadline passed", Failure.PERMANENT))
        self._end(row, outcome)

    async def _until_due(self, row: Row) -> None:
        call = row.invocation.call
        if call.not_before is not None:
            await asyncio.sleep(max(0.0, call.not_before - self._clock.wall_s()))
        wanted = {("project", call.project), ("pool", POOL), ("queue", QUEUE)}
        while wanted & self._rows.paused:
            await self._resumed.wait()

    async def _attempt(self, row: Row) -> Outcome | None:
        """One release; None to try again."""
        self._release(row)
        await asyncio.sleep(0)  # a release is seen as such before it runs
        now_s = self._clock.wall_s()
        self._last(row, started_at=now_s)
        row.invocation = replace(row.invocation, state=State.RUNNING)
        row.say("running", now_s, node=NODE, fence=row.invocation.fence)
        try:
            outcome = await self._call(row)
        except ToolBroke as broke:
            outcome = Outcome("failed", error=ErrorInfo("tool_broke", broke.message, broke.failure))
        self._last(row, ended_at=self._clock.wall_s(), ending=outcome.ending, error=outcome.error)
        if outcome.error is None or not self._repeats(row, outcome.error):
            return outcome
        row.invocation = replace(row.invocation, state=State.WAITING)
        row.say("retry", self._clock.wall_s(), fence=row.invocation.fence, error=outcome.error.message, wait_s=0.0)
        return None

    async def _call(self, row: Row) -> Outcome:
        def report(progress: float, total: float | None, message: str | None) -> None:
            row.say("progress", self._clock.wall_s(), progress=progress, total=total, message=message)

        result = await self._tools[row.invocation.call.tool].run(row.arguments, report)
        text = orjson.dumps(result).decode()
        if result.get("isError"):
            said = str(result["content"][0]["text"])
            return Outcome("failed", text, error=ErrorInfo("tool_error", said, Failure.TOOL_ERROR))
        return Outcome("succeeded", text)

    def _repeats(self, row: Row, error: ErrorInfo) -> bool:
        invocation = row.invocation
        tries = invocation.tries + 1
        row.invocation = replace(invocation, tries=tries)
        is_safe = self._tools[invocation.call.tool].spec.is_safe
        policy = invocation.call.retry or RetryPolicy()
        return isinstance(next_attempt(error, tries=tries, is_safe=is_safe, policy=policy, draw=0.0), Again)

    def _release(self, row: Row) -> None:
        now_s, fence = self._clock.wall_s(), row.invocation.fence + 1
        attempt = Attempt(
            row.invocation.id, fence, NODE, "1", POOL, Lane.TOOLS, QUEUE, now_s, reasons=("the only node",)
        )
        row.invocation = replace(
            row.invocation, state=State.RELEASED, fence=fence, attempts=(*row.invocation.attempts, attempt)
        )
        row.say("released", now_s, node=NODE, fence=fence)

    def _last(self, row: Row, *, error: ErrorInfo | None = None, **changes: Any) -> None:  # noqa: ANN401 - of Attempt
        if error is not None:
            changes |= {"error_code": error.code, "error_message": error.message}
        *before, last = row.invocation.attempts
        row.invocation = replace(row.invocation, attempts=(*before, replace(last, **changes)))

    def _end(self, row: Row, outcome: Outcome) -> None:
        now_s, error = self._clock.wall_s(), outcome.error
        row.invocation = replace(row.invocation, state=State(outcome.ending), ended_at=now_s, outcome=outcome)
        if error is not None:
            ended = row.invocation
            self._rows.dead[ended.id] = DeadLetter(
                ended.id, ended.call.tool, ended.call.project, ended.principal.tenant, outcome.ending, error.code,
                error, now_s, None,
            )  # fmt: skip
        if outcome.ending == "succeeded" and row.invocation.call.then:
            self._follow(row.invocation, outcome)
        row.say("ended", now_s, state=outcome.ending)

    def _follow(self, before: Invocation, outcome: Outcome) -> None:
        following, *rest = before.call.then
        arguments = orjson.loads(following.arguments_json)
        if following.into is not None:
            result = orjson.loads(outcome.result_json or "{}")
            text = "\n".join(block["text"] for block in result["content"] if block["type"] == "text")
            arguments[following.into] = result.get("structuredContent", text)
        now_s = self._clock.wall_s()
        call = replace(following, arguments_json=orjson.dumps(arguments).decode(), then=tuple(rest))
        row = Row(
            Invocation(call.invocation_id or new_id(now_s), call, before.principal, before.lane, State.WAITING, now_s)
        )
        self._rows.add(row)
        self.start(row)
