"""Questions of runs to people: taken from nodes, shown at every door, answered once, brought back.

Owns which questions are open, in memory, so that every renewal can say their answers again until the node has
said what it made of them. The ledger has the truth: a new leader reads it. Refuses to judge an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from orchestrator.happenings import ApprovalAnswered, ApprovalAsked, AttemptEnded, Ended, Happening
from orchestrator.ledger.approval_values import ApprovalRow, NewAnswer, NewApproval
from orchestrator.ledger.values import Outstanding
from tasks.approval import ApprovalState, Taken, Verdict, is_sound
from tasks.clock import Clock
from tasks.invocation import Principal
from tasks.ledger_events import Asked, Resolved
from tasks.node import ApprovalAnswer, Control
from tasks.scopes import Scope, require

SUPERSEDED = "this attempt was given up by the fleet"
log = structlog.get_logger("mcpfleet.approvals")


class Books(Protocol):
    """The ledger, as approvals need it."""

    async def ask_approval(self, asked: NewApproval) -> tuple[ApprovalRow | None, bool]: ...
    async def answer_approval(
        self, approval_id: str, tenant: str | None, answer: NewAnswer
    ) -> tuple[ApprovalRow, bool]: ...
    async def take_approval(self, approval_id: str, node: str, taken: Taken, at: float) -> None: ...
    async def approval(self, approval_id: str, tenant: str | None) -> ApprovalRow: ...
    async def approvals(
        self, tenant: str | None, states: frozenset[ApprovalState], cursor: str | None, limit: int
    ) -> tuple[list[ApprovalRow], str | None]: ...


class Attempts(Protocol):
    """The open attempts."""

    def current(self, invocation_id: str, fence: int) -> Outstanding | None: ...
    def parked(self, invocation_id: str, fence: int, is_parked: bool) -> None: ...


class Voice(Protocol):
    """A node's control stream. What is lost there is said again, or asked again."""

    async def say(self, node: str, control: Control) -> None: ...


class Approvals:
    """The desk."""

    def __init__(
        self,
        *,
        books: Books,
        attempts: Attempts,
        is_doubtful: Callable[[str], bool],
        tell: Callable[[Happening], None],
        clock: Clock,
    ) -> None:
        self.voice: Voice | None = None
        """Set once it is there: it hears events of nodes, and brings them here."""
        self.on_room: Callable[[Outstanding], None] = lambda _: None
        """The slot of this attempt is others' now."""
        self._books, self._attempts, self._is_doubtful = books, attempts, is_doubtful
        self._tell, self._clock = tell, clock
        self._open: dict[str, ApprovalRow] = {}

    def recall(self, rows: Sequence[ApprovalRow]) -> None:
        """What an earlier leader left open. After the open attempts are known."""
        self._open = {row.question.id: row for row in rows}
        for row in rows:
            self._park(row)

    async def asked(self, events: Sequence[tuple[str, Asked]]) -> None:
        """Nodes ask, also again. Each is told that it is noted, or that its attempt is superseded.

        Raises:
            LedgerDown: nothing was noted; they ask again.
        """
        for node, event in events:
            if self._is_doubtful(event.invocation):
                continue  # being looked up in the ledger: its node asks again
            if not is_sound(event.question):
                log.error("question_unsound", invocation=event.invocation, node=node, effect="it is denied")
                await self._say(node, Control(kind="approvals", answers=(_refusal(event),)))
                continue
            row, is_new = await self._books.ask_approval(_new(node, event))
            if row is None or self._attempts.current(event.invocation, event.fence) is None:
                log.info("question_refused", invocation=event.invocation, fence=event.fence, node=node)
                await self._say(node, Control(kind="approvals", answers=(_refusal(event),)))
                continue
            if row.taken is None:
                self._open[event.question.id] = row
                self._park(row)
            if is_new:
                self._tell(asked_of(row))
            answers = (_answer(row),) if row.answer is not None else ()
            await self._say(node, Control(kind="approvals", noted=(row.question.id,), answers=answers))

    async def resolved(self, events: Sequence[tuple[str, Resolved]]) -> None:
        """Nodes say what they made of questions."""
        for node, event in events:
            await self._books.take_approval(event.approval, node, event.taken, event.at)
            row = self._open.get(event.approval)
            if row is None or row.question.node != node:
                continue
            del self._open[event.approval]
            self._park(row)
            if row.answer is None:
                reason = "nobody answered in time"
                happened = ApprovalAnswered(
                    event.invocation,
                    event.fence,
                    event.approval,
                    row.question.tool,
                    event.taken,
                    None,
                    reason,
                    event.at,
                )
                self._tell(happened)

    async def answer(
        self, approval_id: str, verdict: Verdict, arguments_sha256: str, reason: str, principal: Principal
    ) -> ApprovalRow:
        """What a person says; durable when it returns, and on its way.

        Raises:
            NotFound, OtherArguments, AlreadyAnswered, ApprovalOver, ScopeMissing
        """
        require(principal, Scope.APPROVALS_WRITE)
        now_s = self._clock.wall_s()
        said = NewAnswer(verdict, arguments_sha256, principal.id, now_s, reason)
        row, is_first = await self._books.answer_approval(approval_id, principal.tenant, said)
        asked = row.question
        if row.taken is None and row.is_current:
            self._open[approval_id] = row
            await self._say(asked.node, Control(kind="approvals", answers=(_answer(row),)))
        if is_first:
            log.info("approval_answered", approval=approval_id, invocation=asked.invocation_id, answer=verdict)
            taken, by = Taken(verdict), row.answered_by
            self._tell(
                ApprovalAnswered(
                    asked.invocation_id, asked.fence, approval_id, asked.tool, taken, by, row.reason or "", now_s
                )
            )
        return row

    async def get(self, approval_id: str, principal: Principal) -> ApprovalRow:
        """Raises NotFound: there is none, or it is another tenant's."""
        return await self._books.approval(approval_id, principal.tenant)

    async def listing(
        self, states: frozenset[ApprovalState], principal: Principal, cursor: str | None, limit: int
    ) -> tuple[list[ApprovalRow], str | None]:
        """Those of the caller's tenant, newest first."""
        return await self._books.approvals(principal.tenant, states, cursor, limit)

    def waiting(self, invocation_id: str) -> tuple[ApprovalRow, ...]:
        """What this Invocation waits for now, oldest first."""
        now_s = self._clock.wall_s()
        return tuple(
            row
            for row in self._open.values()
            if row.question.invocation_id == invocation_id and row.state(now_s) is ApprovalState.WAITING
        )

    def answers_for(self, node: str) -> tuple[ApprovalAnswer, ...]:
        """Those that the node has not said its word on: every renewal says them again."""
        return tuple(
            _answer(row) for row in self._open.values() if row.question.node == node and row.answer is not None
        )

    def hear(self, happening: Happening) -> None:
        """An attempt that ended asks nothing more."""
        if isinstance(happening, AttemptEnded | Ended) and self._open:
            over = [key for key, row in self._open.items() if row.question.invocation_id == happening.invocation_id]
            for key in over:
                del self._open[key]

    def _park(self, row: ApprovalRow) -> None:
        """Whether the attempt's slot is others' now."""
        if not row.question.frees_slot:
            return
        invocation, fence = row.question.invocation_id, row.question.fence
        is_parked = any(
            (each.question.invocation_id, each.question.fence, each.answer) == (invocation, fence, None)
            for each in self._open.values()
        )
        self._attempts.parked(invocation, fence, is_parked)
        attempt = self._attempts.current(invocation, fence)
        if is_parked and attempt is not None:
            self.on_room(attempt)

    async def _say(self, node: str, control: Control) -> None:
        if self.voice is not None:
            await self.voice.say(node, control)


def asked_of(row: ApprovalRow) -> ApprovalAsked:
    """The telling of a question."""
    asked = row.question
    return ApprovalAsked(
        asked.invocation_id, asked.fence, asked.id, asked.tool, asked.arguments_sha256, asked.expires_at, asked.asked_at
    )


def _new(node: str, event: Asked) -> NewApproval:
    asked = event.question
    return NewApproval(
        id=asked.id,
        invocation_id=event.invocation,
        fence=event.fence,
        node=node,
        tool=asked.tool,
        asked_at=asked.asked_at,
        expires_at=asked.expires_at,
        frees_slot=asked.frees_slot,
        arguments_sha256=asked.arguments_sha256,
        arguments_json=asked.arguments_json,
    )


def _answer(row: ApprovalRow) -> ApprovalAnswer:
    assert row.answer is not None
    return ApprovalAnswer(
        approval=row.question.id,
        verdict=row.answer,
        arguments_sha256=row.question.arguments_sha256,
        reason=row.reason or "",
    )


def _refusal(event: Asked) -> ApprovalAnswer:
    asked = event.question
    return ApprovalAnswer(
        approval=asked.id, verdict=Verdict.DENY, arguments_sha256=asked.arguments_sha256, reason=SUPERSEDED
    )
