"""/v1/invocations:wait: one request that waits for up to 1,000 Invocations.

A client that waits for many would otherwise hold as many connections.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import orjson

from orchestrator.api import views
from orchestrator.api.operation import Answer, Ask, Operation
from orchestrator.api.ports import Calls
from orchestrator.api.reply import Reply
from orchestrator.api.settings import ApiSettings
from tasks.errors import NotFound
from tasks.invocation import TERMINAL, Invocation, Principal, State
from tasks.scopes import Scope
from tasks.wire import Until, WaitRequest, WaitView

GRACE_S = 2.0
"""Beyond the time asked for: each wait reads the ledger once more when its time is over."""


@dataclass(slots=True)
class _Found:
    """What is known so far; `over` is set once nothing more needs to be waited for."""

    pending: dict[str, None]
    until: Until
    over: asyncio.Event = field(default_factory=asyncio.Event)
    ended: dict[str, Invocation] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    def note(self, invocation_id: str, found: Invocation | None) -> None:
        """One answer came in."""
        if found is not None and found.state not in TERMINAL:
            return
        del self.pending[invocation_id]
        if found is None:
            self.unknown.append(invocation_id)
        else:
            self.ended[invocation_id] = found
        is_enough = self.until is Until.ANY and found is not None
        is_bad = found is not None and found.state is not State.SUCCEEDED
        if not self.pending or is_enough or (is_bad and self.until is Until.FIRST_FAILURE):
            self.over.set()


class Waits:
    """The one operation."""

    def __init__(self, calls: Calls, settings: ApiSettings) -> None:
        self._calls, self._settings = calls, settings

    def operations(self) -> tuple[Operation, ...]:
        """Its declaration."""
        return (
            Operation("POST", "/v1/invocations:wait", "wait_for_many", Scope.INVOCATIONS_READ,
                      "Wait for several Invocations at once",
                      self.wait, {200: Answer("what ended, and what did not", WaitView)}, body=WaitRequest),
        )  # fmt: skip

    async def wait(self, ask: Ask) -> Reply:
        """POST /v1/invocations:wait."""
        request = ask.body(WaitRequest)
        found = _Found(dict.fromkeys(request.ids), request.until)
        timeout_s = min(request.timeout_s, self._settings.wait_max_s)
        if found.pending:
            await self._wait(found, ask.principal, timeout_s)
        return await self._reply(found)

    async def _wait(self, found: _Found, principal: Principal, timeout_s: float) -> None:
        """Fill `found`. Whoever is still waited for when it is over is given up, not asked again."""
        waiters = [asyncio.create_task(self._one(found, one, principal, timeout_s)) for one in found.pending]
        failing = asyncio.gather(*waiters)
        enough = asyncio.create_task(found.over.wait())
        try:
            watched: set[asyncio.Future[Any]] = {failing, enough}
            await asyncio.wait(watched, timeout=timeout_s + GRACE_S, return_when=asyncio.FIRST_COMPLETED)
            if failing.done():
                failing.result()  # an error that is not about one id: the ledger is down, for example
        finally:
            enough.cancel()
            failing.cancel()
            await asyncio.gather(failing, enough, *waiters, return_exceptions=True)

    async def _one(self, found: _Found, invocation_id: str, principal: Principal, timeout_s: float) -> None:
        try:
            found.note(invocation_id, await self._calls.wait(invocation_id, principal, timeout_s))
        except NotFound:
            found.note(invocation_id, None)

    async def _reply(self, found: _Found) -> Reply:
        ended: list[bytes] = []
        more: list[str] = []
        room_bytes = self._settings.answer_limit_bytes
        for value in found.ended.values():
            if room_bytes <= 0:
                more.append(value.id)
                continue
            view = views.invocation(value, await self._calls.result_json(value))
            room_bytes -= len(view)
            ended.append(view)
        form = {
            "ended": [orjson.Fragment(view) for view in ended],
            "pending": list(found.pending),
            "unknown": found.unknown,
            "more": more,
        }
        return Reply(orjson.dumps(form))
