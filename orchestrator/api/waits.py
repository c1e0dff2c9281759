"""/v1/invocations:wait: one request that waits for up to 1,000 Invocations.

A client that waits for many would otherwise hold as many connections.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson

from orchestrator.api import views
from orchestrator.api.operation import Answer, Ask, Operation
from orchestrator.api.ports import Calls
from orchestrator.api.reply import Reply
from orchestrator.api.settings import ApiSettings
from tasks.errors import NotFound
from tasks.invocation import TERMINAL, Invocation, Principal, State
from tasks.wire import Until, WaitRequest, WaitView


class _Badly(Exception):  # noqa: N818 - a signal between tasks
    """One Invocation ended, and not well."""


@dataclass(slots=True)
class _Sorted:
    ended: list[Invocation] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def is_over(self, until: Until) -> bool:
        if not self.pending:
            return True
        if until is Until.ANY:
            return bool(self.ended)
        return until is Until.FIRST_FAILURE and any(one.state is not State.SUCCEEDED for one in self.ended)


class Waits:
    """The one operation."""

    def __init__(self, calls: Calls, settings: ApiSettings) -> None:
        self._calls, self._settings = calls, settings

    def operations(self) -> tuple[Operation, ...]:
        """Its declaration."""
        return (
            Operation("POST", "/v1/invocations:wait", "wait_for_many", "Wait for several Invocations at once",
                      self.wait, {200: Answer("what ended, and what did not", WaitView)}, body=WaitRequest),
        )  # fmt: skip

    async def wait(self, ask: Ask) -> Reply:
        """POST /v1/invocations:wait."""
        request = ask.body(WaitRequest)
        ids = list(dict.fromkeys(request.ids))
        found = await self._look(ids, ask.principal)
        timeout_s = min(request.timeout_s, self._settings.wait_max_s)
        if timeout_s > 0 and not found.is_over(request.until):
            await self._until(found.pending, ask.principal, timeout_s, request.until)
            found = await self._look(ids, ask.principal)
        return await self._reply(found)

    async def _look(self, ids: Sequence[str], principal: Principal) -> _Sorted:
        result = _Sorted()
        for invocation_id, found in zip(
            ids, await asyncio.gather(*(self._find(one, principal) for one in ids)), strict=True
        ):
            if found is None:
                result.unknown.append(invocation_id)
            elif found.state in TERMINAL:
                result.ended.append(found)
            else:
                result.pending.append(invocation_id)
        return result

    async def _find(self, invocation_id: str, principal: Principal) -> Invocation | None:
        try:
            return await self._calls.get(invocation_id, principal)
        except NotFound:
            return None

    async def _until(self, ids: Sequence[str], principal: Principal, timeout_s: float, until: Until) -> None:
        async def one(invocation_id: str) -> None:
            ended = await self._calls.wait(invocation_id, principal, timeout_s)
            if ended.state not in {State.SUCCEEDED} and ended.state in TERMINAL:
                raise _Badly

        when = {
            Until.ANY: asyncio.FIRST_COMPLETED,
            Until.ALL: asyncio.ALL_COMPLETED,
            Until.FIRST_FAILURE: asyncio.FIRST_EXCEPTION,
        }[until]
        waiters = [asyncio.create_task(one(invocation_id)) for invocation_id in ids]
        try:
            await asyncio.wait(waiters, timeout=timeout_s, return_when=when)
        finally:
            for waiter in waiters:
                waiter.cancel()
            ends = await asyncio.gather(*waiters, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception) and not isinstance(end, _Badly | NotFound):
                raise end

    async def _reply(self, found: _Sorted) -> Reply:
        ended: list[bytes] = []
        more: list[str] = []
        room_bytes = self._settings.answer_limit_bytes
        for value in found.ended:
            if room_bytes <= 0 and ended:
                more.append(value.id)
                continue
            view = views.invocation(value, await self._calls.result_json(value))
            room_bytes -= len(view)
            ended.append(view)
        form = {
            "ended": [orjson.Fragment(view) for view in ended],
            "pending": found.pending,
            "unknown": found.unknown,
            "more": more,
        }
        return Reply(orjson.dumps(form))
