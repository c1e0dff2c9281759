"""The open questions of this node's runs: asked until they are noted, answered once, denied when nobody does.

Owns the way of a question to the orchestrator and of its answer back, and the time that does not count while a
run waits. Refuses to judge: it only sees that an answer is to the arguments that were asked.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from tasks.approval import ARGUMENTS_MAX_BYTES, Permission, Question, Taken, Verdict, canonical, digest
from tasks.clock import Clock
from tasks.ledger_events import Asked, Resolved
from tasks.node import ApprovalAnswer
from worker.admit import Ref
from worker.seats import Seat

RESEND_S, RESEND_CAP_S = 5.0, 60.0
"""A question that nobody noted is asked again after so long; then after twice as long, up to the cap."""
GRACE_S = 15.0
"""Past its expiry: an answer that was taken just before it may still be on its way."""
OPEN_MAX = 16
"""Questions of one attempt at a time."""
REMEMBERED = 1000
"""Questions that are over, for answers that come again."""
_log = structlog.get_logger()


class Teller(Protocol):
    """Where events go."""

    def tell(self, event: Asked | Resolved) -> None:
        """Send once."""
        ...


@dataclass(slots=True)
class _Open:
    ref: Ref
    question: Question
    answer: asyncio.Future[ApprovalAnswer]
    noted: asyncio.Event = field(default_factory=asyncio.Event)


class Approvals:
    """All of one node."""

    def __init__(self, teller: Teller, clock: Clock, new_id: Callable[[], str]) -> None:
        self._teller, self._clock, self._new_id = teller, clock, new_id
        self._open: dict[str, _Open] = {}
        self._over: OrderedDict[str, Resolved] = OrderedDict()

    def question(
        self, tool: str, arguments: Mapping[str, Any], *, wait_s: float, until: float | None, frees_slot: bool
    ) -> Question:
        """One that may be asked. `until`: wall clock, the attempt's own deadline.

        Raises:
            ValueError, TypeError: the arguments are no JSON.
        """
        text, now = canonical(arguments), self._clock.wall_s()
        expires_at = now + wait_s if until is None else min(now + wait_s, until)
        return Question(self._new_id(), tool, text, digest(text), now, expires_at, frees_slot)

    async def answer(self, ref: Ref, question: Question) -> Permission:
        """What a person says to it; denied where nobody says anything in time."""
        if len(question.arguments_json) > ARGUMENTS_MAX_BYTES:
            size = f"{len(question.arguments_json)} bytes of arguments, of at most {ARGUMENTS_MAX_BYTES}"
            return Permission(is_allowed=False, reason=f"not asked: {size} that a person can be shown; do less at once")
        if sum(each.ref == ref for each in self._open.values()) >= OPEN_MAX:
            return Permission(is_allowed=False, reason=f"not asked: {OPEN_MAX} questions of this run are open already")
        asked = self._open[question.id] = _Open(ref, question, asyncio.get_running_loop().create_future())
        try:
            taken, permission = _read(question, await self._answer_to(asked))
        finally:
            del self._open[question.id]
        resolved = self._over[question.id] = Resolved(*ref, question.id, taken, self._clock.wall_s())
        if len(self._over) > REMEMBERED:
            self._over.popitem(last=False)
        self._teller.tell(resolved)
        _log.info("approval_resolved", approval=question.id, tool=question.tool, taken=taken)
        return permission

    def noted(self, ids: Iterable[str]) -> None:
        """The ledger has these questions."""
        for one in ids:
            if one in self._open:
                self._open[one].noted.set()

    def answered(self, answers: Iterable[ApprovalAnswer]) -> None:
        """Answers, also again. One to other arguments than were asked is none."""
        for answer in answers:
            asked = self._open.get(answer.approval)
            if asked is None:
                if answer.approval in self._over:
                    self._teller.tell(self._over[answer.approval])
            elif answer.verdict is Verdict.ALLOW and answer.arguments_sha256 != asked.question.arguments_sha256:
                _log.error("answer_to_other_arguments", approval=answer.approval)
            elif not asked.answer.done():
                asked.answer.set_result(answer)

    async def _answer_to(self, asked: _Open) -> ApprovalAnswer | None:
        """None: nobody answered in time."""
        again_s = RESEND_S
        self._teller.tell(Asked(*asked.ref, asked.question))
        while (left_s := asked.question.expires_at + GRACE_S - self._clock.wall_s()) > 0:
            pause_s = left_s if asked.noted.is_set() else min(left_s, again_s)
            done, _ = await asyncio.wait({asked.answer}, timeout=pause_s)
            if done:
                return asked.answer.result()
            if not asked.noted.is_set():
                self._teller.tell(Asked(*asked.ref, asked.question))
                again_s = min(RESEND_CAP_S, again_s * 2)
        return None


class Pause:
    """The limit of an attempt, which does not run while the attempt waits for a person; its deadline does."""

    def __init__(self, limit: asyncio.Timeout, deadline_s: float | None) -> None:
        """`deadline_s`: on the loop's clock."""
        self._limit, self._deadline_s, self._waits, self._left_s = limit, deadline_s, 0, 0.0

    def __enter__(self) -> None:
        self._waits += 1
        when_s = self._limit.when()
        if self._waits == 1 and when_s is not None:
            self._left_s = when_s - asyncio.get_running_loop().time()
            self._limit.reschedule(self._deadline_s)

    def __exit__(self, *_: object) -> None:
        self._waits -= 1
        if self._waits == 0 and not self._limit.expired():
            goes_on_s = asyncio.get_running_loop().time() + self._left_s
            self._limit.reschedule(goes_on_s if self._deadline_s is None else min(goes_on_s, self._deadline_s))


@dataclass(frozen=True, slots=True)
class OfAttempt:
    """Asks for one attempt. Satisfies `worker.upstreams.upstream.Approver`."""

    approvals: Approvals
    ref: Ref
    until: float | None
    """The attempt's deadline, wall clock: nobody is asked for longer."""
    pause: Pause
    seat: Seat

    def question(self, tool: str, arguments: Mapping[str, Any], *, wait_s: float, frees_slot: bool) -> Question:
        """See `Approvals.question`."""
        return self.approvals.question(tool, arguments, wait_s=wait_s, until=self.until, frees_slot=frees_slot)

    async def answer(self, question: Question) -> Permission:
        """See `Approvals.answer`. It comes back with a slot."""
        with self.pause:
            if question.frees_slot:
                self.seat.leave()
            permission = await self.approvals.answer(self.ref, question)
            await self.seat.take_again()
            return permission


def _read(question: Question, answer: ApprovalAnswer | None) -> tuple[Taken, Permission]:
    if answer is None:
        waited_s = question.expires_at - question.asked_at
        return Taken.EXPIRED, Permission(is_allowed=False, reason=f"nobody answered within {waited_s:.0f} s")
    if answer.verdict is Verdict.ALLOW:
        return Taken.ALLOW, Permission(is_allowed=True)
    return Taken.DENY, Permission(is_allowed=False, reason=answer.reason or "a person said no")
