"""One MCP task, as the Invocations behind it.

A task that asks for input and gets it goes on as a new Invocation: a *leg*. The task keeps the id
of its first leg; leg n is called `{task}-{n}`, so that any replica finds it, and is accepted under
the idempotency key `mcp-task:{task}:{n}`, so that of two concurrent updates one wins and the other
reads it again. Answers to only some of the questions are kept as a *parked* leg: accepted, with the
answers so far, but not to be released. So everything about a task is in the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.front.ask import is_input_required
from orchestrator.front.exact_json import read, write
from orchestrator.front.ports import Fleet
from tasks.clock import Clock
from tasks.errors import NotFound
from tasks.invocation import TERMINAL, Invocation, Principal, State

PARKED_S = 365 * 86_400.0
"""Not to be released for so long: for ever, in the ledger's terms. The task is past its time before."""
RACES = 8
"""Lost races in a row before an update gives up; each means that another update won."""


@dataclass(frozen=True, slots=True)
class Legs:
    """Where a task stands. `pending` is what it still asks; empty when it asks nothing."""

    first: Invocation
    last: Invocation
    number: int
    result: dict[str, Any] | None = None
    """Of the last leg, when it ended with one."""
    pending: Mapping[str, Any] = field(default_factory=dict)
    answered: Mapping[str, Any] = field(default_factory=dict)
    request_state: str | None = None

    @property
    def is_over(self) -> bool:
        """Nothing will change any more."""
        return not self.pending and self.last.state in TERMINAL


class Tasks:
    """Reads and moves tasks."""

    def __init__(self, fleet: Fleet, clock: Clock) -> None:
        self._fleet = fleet
        self._clock = clock

    async def read(self, task_id: str, principal: Principal) -> Legs:
        """Where the task stands now.

        Raises:
            NotFound: no such task, or another tenant's.
        """
        last = first = await self._fleet.get(task_id, principal)
        number, asked = 1, dict[str, Any]()
        while True:
            pending = {key: question for key, question in asked.items() if key not in answers_of(last)}
            result = None if pending or last.state not in TERMINAL else await self._result(last)
            is_asking = result is not None and is_input_required(result)
            if result is not None and is_asking:
                pending = asked = dict(result.get("inputRequests") or {})
            if not pending and not is_asking:
                return Legs(first, last, number, result)
            legs = _asking(Legs(first, last, number, result, pending), asked)
            following = await self._leg(task_id, number + 1, principal)
            if following is None and pending:
                return legs
            # A tool that asks nothing and only hands back its state wants to be called again.
            last, number = following or await self._accept_next(legs, {}, principal), number + 1

    async def update(self, task_id: str, answers: Mapping[str, Any], principal: Principal) -> None:
        """Add answers; the task goes on when none is missing. Keys that were not asked are ignored.

        Raises:
            NotFound: no such task.
        """
        for _ in range(RACES):
            legs = await self.read(task_id, principal)
            fresh = {key: answer for key, answer in answers.items() if key in legs.pending}
            if not fresh:
                return
            await self._accept_next(legs, {**legs.answered, **fresh}, principal)

    async def cancel(self, task_id: str, principal: Principal) -> None:
        """End the task; nothing happens to one that is over.

        Raises:
            NotFound: no such task.
        """
        legs = await self.read(task_id, principal)
        if legs.pending:
            following = await self._accept_next(legs, legs.answered, principal, is_parked=True)
            await self._fleet.cancel(following.id, principal)
        elif not legs.is_over:
            await self._fleet.cancel(legs.last.id, principal)

    async def _accept_next(
        self, legs: Legs, answers: Mapping[str, Any], principal: Principal, *, is_parked: bool | None = None
    ) -> Invocation:
        """Leg n + 1, or the one that another replica made under that number."""
        if is_parked is None:
            is_parked = not legs.pending.keys() <= answers.keys()
        call = replace(
            legs.first.call,
            invocation_id=leg_id(legs.first.id, legs.number + 1),
            idempotency_key=f"mcp-task:{legs.first.id}:{legs.number + 1}",
            not_before=self._clock.wall_s() + PARKED_S if is_parked else None,
            meta_json=_meta_json(legs, answers),
        )
        accepted = (await self._fleet.accept([call], principal))[0]
        if legs.number > 1 and legs.last.state is State.WAITING:
            await self._fleet.cancel(legs.last.id, principal)  # a parked leg: superseded by the one just accepted
        return accepted

    async def _leg(self, task_id: str, number: int, principal: Principal) -> Invocation | None:
        try:
            return await self._fleet.get(leg_id(task_id, number), principal)
        except NotFound:
            return None

    async def _result(self, invocation: Invocation) -> dict[str, Any] | None:
        text = await self._fleet.result_json(invocation)
        return None if text is None else read(text)


def _asking(legs: Legs, asked: Mapping[str, Any]) -> Legs:
    """What a leg that ended by asking, or one parked with some of the answers, still wants."""
    if legs.result is not None:
        return replace(legs, result=None, request_state=legs.result.get("requestState"))
    if legs.last.state in TERMINAL:
        return replace(legs, pending={})  # a parked leg that was cancelled or that expired: so is the task
    answered = {key: answer for key, answer in answers_of(legs.last).items() if key in asked}
    return replace(legs, answered=answered, request_state=_carried(legs.last).get("requestState"))


def leg_id(task_id: str, number: int) -> str:
    """The Invocation's id of leg `number`; the first has the task's own."""
    return f"{task_id}-{number}"


def answers_of(invocation: Invocation) -> dict[str, Any]:
    """The answers that came with a leg."""
    answers: dict[str, Any] = _carried(invocation).get("inputResponses") or {}
    return answers


def _carried(invocation: Invocation) -> dict[str, Any]:
    text = invocation.call.meta_json
    return read(text) if text else {}


def _meta_json(legs: Legs, answers: Mapping[str, Any]) -> str:
    carried: dict[str, Any] = {"inputResponses": dict(answers)}
    meta = _carried(legs.first).get("_meta")
    if meta is not None:
        carried["_meta"] = meta
    if legs.request_state is not None:
        carried["requestState"] = legs.request_state
    return write(carried).decode()
