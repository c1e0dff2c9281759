"""Every end of an attempt passes here, once: judge, write to the ledger, then tell.

Satisfies the registry's `Fates`. Owns no state of its own; `OpenAttempts` and the ledger have it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Protocol

import structlog

from orchestrator.happenings import AttemptEnded, AttemptRunning, Ended, Happening, ModelsUsed
from orchestrator.ledger.values import Booking, NewInvocation, Outstanding, Settled, Settlement, Started, Waiting
from orchestrator.settling.verdict import (
    LOSSES,
    SUCCEEDED,
    Circumstances,
    is_death,
    on_disowned,
    on_finished,
    on_lapsed,
    on_lost,
)
from orchestrator.settling.waiting import as_waiting
from tasks.clock import Clock
from tasks.errors import LedgerDown, NotFound, Unopened
from tasks.invocation import TERMINAL, Invocation, State
from tasks.ledger_events import Finished, Progress
from tasks.outcome import ErrorInfo, Failure, Outcome
from tasks.retry import RetryPolicy
from tasks.spend import Spent
from tasks.tool import Declared, ToolSpec

log = structlog.get_logger("mcpfleet.settling")
Ref = tuple[str, int]


class Books(Protocol):
    """The ledger, as settling needs it."""

    async def settle(self, wanted: Sequence[Settlement]) -> list[Settled]: ...
    async def book(self, wanted: Sequence[Booking]) -> list[Spent]: ...
    async def mark_started(self, started: Sequence[Started]) -> None: ...
    async def get(self, invocation_id: str, tenant: str | None = None) -> Invocation: ...


class Attempts(Protocol):
    """The open attempts."""

    def current(self, invocation_id: str, fence: int) -> Outstanding | None: ...
    def remove(self, invocation_id: str, fence: int | None = None) -> Outstanding | None: ...
    def to_state(self, invocation_id: str, fence: int, state: State, started_at: float | None = None) -> bool: ...


class Backlog(Protocol):
    """Where an Invocation that is tried again, or a chain's next call, goes."""

    def offer(self, waiting: Waiting) -> None: ...
    def credit_returned(self, attempt: Outstanding) -> None: ...


class Doubted(Protocol):
    """Ids to be looked up again."""

    def note(self, invocation_id: str) -> None: ...
    def has(self, invocation_id: str) -> bool: ...


Successors = Callable[[Invocation, Outcome], Awaitable[tuple[NewInvocation, ...]]]
ToolLookup = Callable[[str], ToolSpec | None]


class Settler:
    """Judges, writes, tells."""

    def __init__(
        self,
        *,
        books: Books,
        attempts: Attempts,
        backlog: Backlog,
        tool: ToolLookup,
        declared: Callable[[str], Declared | None],
        doubts: Doubted,
        successors: Successors,
        default_policy: RetryPolicy,
        clock: Clock,
        draw: Callable[[], float],
        tell: Callable[[Happening], None],
    ) -> None:
        self._books, self._attempts, self._backlog = books, attempts, backlog
        self._tool, self._declared, self._doubts = tool, declared, doubts
        self._successors, self._default = successors, default_policy
        self._clock, self._draw, self._tell = clock, draw, tell

    async def finished(self, events: Sequence[tuple[str, Finished]]) -> list[tuple[str, Finished]]:
        """Nodes reported ends. Those that are answered are settled now, or were refused for good.

        Args:
            events: node and what it said. A stale fence, or another node's, is refused and logged. What is
                being looked up in the ledger is neither: its node says it again.

        Raises:
            LedgerDown: nothing was settled; call again with the same events.
        """
        wanted = []
        refused = []
        sure = [(node, event) for node, event in events if not self._doubts.has(event.invocation)]
        for node, event in sure:
            attempt = self._attempts.current(event.invocation, event.fence)
            if attempt is None or attempt.node != node:
                log.info("outcome_refused", invocation=event.invocation, fence=event.fence, node=node)
                refused.append(self._booking(node, event, event.outcome.spent))
                continue
            wanted.append(await self._judged(attempt, node, event))
        await self._apply(wanted)
        await self._book(refused)
        return sure

    async def spent(self, events: Sequence[tuple[str, Progress]]) -> None:
        """Nodes said what attempts have spent until now; also of attempts that were given up meanwhile."""
        await self._book([self._booking(node, event, event.spent) for node, event in events])

    async def running(self, refs: Sequence[Ref], *, node: str) -> None:
        """A node runs these, says its inventory or a Started event."""
        at = self._clock.wall_s()
        known = [ref for ref in refs if self._attempts.current(*ref)]
        await self.started([(node, Started(invocation, fence, node, at)) for invocation, fence in known])

    async def started(self, events: Sequence[tuple[str, Started]]) -> None:
        """Nodes said that tools were started."""
        news = []
        for node, event in events:
            attempt = self._attempts.current(event.invocation_id, event.fence)
            if attempt is not None and attempt.node == node and attempt.state is not State.RUNNING:
                news.append(event)
        if not news:
            return
        await self._books.mark_started(news)
        for event in news:
            if self._attempts.to_state(event.invocation_id, event.fence, State.RUNNING, event.at):
                self._tell(AttemptRunning(event.invocation_id, event.fence, event.node, event.at))

    async def lapsed(self, attempts: Sequence[Outstanding], *, node: str) -> None:
        """A lease lapsed."""
        message = f"node {node} stopped renewing its lease"
        judged = [
            on_lapsed(a, given=await self._given(a), code="node_lost", message=message)
            for a in attempts
            if a.state is not State.UNREACHABLE
        ]
        await self._apply(judged)

    async def lost(self, attempts: Sequence[Outstanding], *, code: str, message: str) -> None:
        """Nobody will ever say how these ended."""
        await self._apply([on_lost(a, given=await self._given(a), code=code, message=message) for a in attempts])

    async def disowned(self, attempts: Sequence[Outstanding], *, why: str) -> None:
        """These surely never started."""
        now_s = self._clock.wall_s()
        await self._apply([on_disowned(a, now_s=now_s, why=why) for a in attempts])

    async def _judged(self, attempt: Outstanding, node: str, event: Finished) -> Settlement:
        given = _AT_ONCE if event.outcome.ending == SUCCEEDED else await self._given(attempt)
        settlement = on_finished(
            attempt, event.outcome, node=node, ended_at=event.ended_at, started_at=event.started_at, given=given
        )
        if event.outcome.spent:
            settlement = replace(settlement, spent=event.outcome.spent)
        if attempt.is_chained and settlement.to is State.SUCCEEDED:
            return await self._followed(settlement, event.outcome)
        return settlement

    async def _followed(self, settlement: Settlement, outcome: Outcome) -> Settlement:
        """With the chain's next call; where it cannot be made, told again it would be no other: a dead letter."""
        try:
            invocation = await self._books.get(settlement.invocation_id)
            return replace(settlement, successors=await self._successors(invocation, outcome))
        except (Unopened, NotFound) as error:
            log.warning("chain_ends_here", invocation=settlement.invocation_id, why=error.message)
            said = f"it succeeded, and the next call of its chain cannot be made: {error.message}"
            return replace(settlement, error=ErrorInfo(error.code, said, Failure.PERMANENT), dead_reason=error.code)

    def _booking(self, node: str, event: Finished | Progress, spent: Spent) -> Booking:
        return Booking(event.invocation, event.fence, node, self._clock.wall_s(), spent)

    async def _book(self, bookings: Sequence[Booking]) -> None:
        """Nothing is asked of the ledger where nothing was spent: most calls."""
        wanted = [one for one in bookings if one.spent]
        if wanted:
            for one, new in zip(wanted, await self._books.book(wanted), strict=True):
                self._tell_spent(one.invocation_id, one.fence, new)

    def _tell_spent(self, invocation_id: str, fence: int, new: Spent) -> None:
        if new:
            self._tell(ModelsUsed(invocation_id, fence, new))

    async def _given(self, attempt: Outstanding) -> Circumstances:
        spec = self._tool(attempt.tool)
        invocation = await self._books.get(attempt.invocation_id)
        call = invocation.call
        declared = spec.policy.retry if spec else None
        policy = call.retry or (RetryPolicy(**declared.model_dump()) if declared else self._default)
        earlier = [one for one in invocation.attempts if one.fence != attempt.fence]
        deaths = sum(is_death(one.error_code, one.started_at) for one in earlier)
        losses = sum(one.error_code in LOSSES for one in earlier)
        now = self._declared(attempt.tool)
        holds = attempt.declared if now is None else attempt.declared.stricter(now)
        has_capsule = invocation.capsule is not None
        return Circumstances(
            policy, holds.is_safe, self._clock.wall_s(), self._draw(), deaths, losses, holds.on_node_loss, has_capsule
        )

    async def _apply(self, wanted: Sequence[Settlement]) -> None:
        if not wanted:
            return
        for settlement, settled in zip(wanted, await self._books.settle(wanted), strict=True):
            self._tell_spent(settled.invocation_id, settled.fence, settled.booked)
            if not settled.took:
                log.info(
                    "settlement_refused", invocation=settled.invocation_id, fence=settled.fence, state=settled.state
                )
                self._refused(settlement, settled)
                continue
            await self._took(settlement, settled)

    def _refused(self, settlement: Settlement, settled: Settled) -> None:
        """Stale; or taken before, by a commit whose answer was lost. The ledger is asked again."""
        removed = self._attempts.remove(settlement.invocation_id, settlement.fence)
        if removed is not None:
            self._backlog.credit_returned(removed)
        if settled.state not in TERMINAL:
            self._doubts.note(settled.invocation_id)
        for successor in settlement.successors:
            self._doubts.note(successor.invocation.id)  # written by the commit whose answer was lost, or not at all

    async def _took(self, settlement: Settlement, settled: Settled) -> None:
        if settled.state is State.UNREACHABLE:
            self._attempts.to_state(settlement.invocation_id, settlement.fence, State.UNREACHABLE)
            return
        attempt = self._attempts.remove(settlement.invocation_id, settlement.fence)
        if attempt is None:
            return
        ended = _attempt_ended(attempt, settlement, settled)
        self._tell(ended)
        if settled.state in TERMINAL:
            outcome = settled.outcome or settlement.outcome or Outcome(settled.state.value)
            reason = settlement.dead_reason
            if reason is not None:
                about = {"tool": attempt.tool, "project": attempt.project, "node": attempt.node, "reason": reason}
                code = outcome.error.code if outcome.error else settled.state.value
                log.warning("dead_letter", invocation_id=attempt.invocation_id, fence=attempt.fence, code=code, **about)
            self._tell(Ended(attempt.invocation_id, settled.state, settlement.at, attempt.tool, outcome, reason, ended))
        else:
            await self._wait_again(attempt, settlement)
        self._backlog.credit_returned(attempt)
        for successor in settlement.successors:
            self._backlog.offer(as_waiting(successor.invocation))

    async def _wait_again(self, attempt: Outstanding, settlement: Settlement) -> None:
        try:
            waiting = as_waiting(await self._books.get(attempt.invocation_id))
        except LedgerDown:
            self._doubts.note(attempt.invocation_id)
            return
        self._backlog.offer(replace(waiting, not_before=settlement.not_before))


_AT_ONCE = Circumstances(RetryPolicy(), is_safe=False, now_s=0.0, draw=0.0)
"""A success needs no circumstances."""


def _attempt_ended(attempt: Outstanding, settlement: Settlement, settled: Settled) -> AttemptEnded:
    return AttemptEnded(
        invocation_id=attempt.invocation_id,
        fence=attempt.fence,
        tool=attempt.tool,
        project=attempt.project,
        pool=attempt.pool,
        node=attempt.node,
        lane=attempt.lane,
        to=settled.state,
        ending=settlement.attempt_ending,
        released_at=attempt.released_at,
        started_at=settlement.started_at or attempt.started_at,
        at=settlement.at,
        tries=attempt.tries + (1 if settlement.counts_try else 0),
        error=settlement.error,
        not_before=settlement.not_before,
    )
