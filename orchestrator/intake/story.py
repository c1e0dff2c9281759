"""One Invocation's story: what happened so far, then what happens, as events for people and streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Protocol

from orchestrator.happenings import (
    Accepted,
    ApprovalAnswered,
    ApprovalAsked,
    AttemptEnded,
    AttemptReleased,
    AttemptRunning,
    Ended,
    Happening,
    ModelsUsed,
    Progressed,
)
from orchestrator.intake.watch import REREAD_S, Watch
from tasks.invocation import TERMINAL, Attempt, Invocation, Principal, State
from tasks.outcome import ErrorInfo
from tasks.wire import AttemptView, ErrorView, EventView, ExplainView

_WAITS = "waits for room on a node that can run it"


class Books(Protocol):
    """Where the history is."""

    async def get(self, invocation_id: str, tenant: str | None = None) -> Invocation: ...


class Story:
    """Reads the ledger, then listens."""

    def __init__(
        self, *, books: Books, watch: Watch, questions: Callable[[str], Sequence[EventView]] = lambda _: ()
    ) -> None:
        """`questions`: what an Invocation asks of people now; told after its history."""
        self._books, self._watch, self._questions = books, watch, questions

    async def tell(self, invocation_id: str, principal: Principal) -> AsyncIterator[EventView]:
        """History, then live events, ending with `ended`.

        Raises:
            NotFound: no such Invocation for this tenant.
        """
        with self._watch.reading(invocation_id) as queue:
            invocation = await self._books.get(invocation_id, principal.tenant)
            seen = {(a.fence, "released") for a in invocation.attempts}
            for event in (*history(invocation), *self._questions(invocation_id)):
                yield event
            while invocation.state not in TERMINAL:
                happening = await _next(queue)
                if happening is None:
                    invocation = await self._books.get(invocation_id, principal.tenant)
                    if invocation.state in TERMINAL:
                        yield _ended(invocation)
                    continue
                if isinstance(happening, AttemptReleased) and (happening.fence, "released") in seen:
                    continue
                for event in _events(happening):
                    yield event
                if isinstance(happening, Ended):
                    return


def history(invocation: Invocation) -> Iterator[EventView]:
    """What the ledger knows, oldest first."""
    yield EventView(kind="accepted", at=invocation.accepted_at, data={"tool": invocation.call.tool})
    for attempt in invocation.attempts:
        yield EventView(
            kind="released",
            at=attempt.released_at,
            data={"fence": attempt.fence, "node": attempt.node, "queue": attempt.queue, "why": list(attempt.reasons)},
        )
        if attempt.started_at is not None:
            yield EventView(kind="running", at=attempt.started_at, data={"fence": attempt.fence, "node": attempt.node})
        is_last = attempt.fence == invocation.fence and invocation.state in TERMINAL
        if attempt.ending is not None and not is_last:
            yield EventView(kind="retry", at=attempt.ended_at or 0.0, data=_attempt_end(attempt))
    if invocation.state in TERMINAL:
        yield _ended(invocation)


def brief(invocation: Invocation, waiting_because: tuple[str, ...]) -> ExplainView:
    """The current answer to `why`, then every attempt's."""
    last = invocation.attempts[-1] if invocation.attempts else None
    reasons = list(waiting_because)
    if invocation.state is State.WAITING:
        summary = waiting_because[0] if waiting_because else _WAITS
    elif invocation.state in TERMINAL:
        error = invocation.outcome.error if invocation.outcome else None
        summary = f"{invocation.state}{': ' + error.message if error else ''}"
        reasons = list(last.reasons) if last else reasons
    elif invocation.approvals:
        summary = f"waits for a person: mcpfleet approvals show {invocation.approvals[0]}"
        reasons = [f"asks {one}" for one in invocation.approvals] + (list(last.reasons) if last else [])
    else:
        summary = last.reasons[0] if last and last.reasons else str(invocation.state)
        reasons = list(last.reasons) if last else reasons
    return ExplainView(
        id=invocation.id,
        state=invocation.state,
        summary=summary,
        reasons=reasons,
        attempts=[attempt_view(attempt) for attempt in invocation.attempts],
        trace_id=invocation.call.trace_id,
    )


def attempt_view(attempt: Attempt) -> AttemptView:
    """An attempt on the wire."""
    error = None
    if attempt.error_code is not None:
        error = ErrorView(code=attempt.error_code, message=attempt.error_message or "", failure=attempt.ending or "")
    return AttemptView(
        fence=attempt.fence,
        node=attempt.node,
        pool=attempt.pool,
        queue=attempt.queue,
        released_at=attempt.released_at,
        started_at=attempt.started_at,
        ended_at=attempt.ended_at,
        ending=attempt.ending,
        error=error,
        reasons=list(attempt.reasons),
    )


async def _next(queue: asyncio.Queue[Happening]) -> Happening | None:
    try:
        async with asyncio.timeout(REREAD_S):
            return await queue.get()
    except TimeoutError:
        return None


def _events(happening: Happening) -> Iterator[EventView]:
    data: dict[str, object]
    match happening:
        case AttemptReleased():
            why = list(happening.reasons)
            data = {"fence": happening.fence, "node": happening.node, "queue": happening.queue, "why": why}
            yield EventView(kind="released", at=happening.at, data=data)
        case AttemptRunning():
            yield EventView(kind="running", at=happening.at, data={"fence": happening.fence, "node": happening.node})
        case Progressed():
            data = {"progress": happening.progress, "total": happening.total, "message": happening.message}
            yield EventView(kind="progress", at=happening.at, data=data)
        case ApprovalAsked():
            yield asked_event(happening)
        case ApprovalAnswered():
            data = {"approval": happening.approval_id, "tool": happening.tool, "answer": happening.answer}
            said = {"by": happening.by, "reason": happening.reason}
            yield EventView(kind="answered", at=happening.at, data=data | said)
        case AttemptEnded() if happening.to is State.WAITING:
            data = {"fence": happening.fence, "ending": happening.ending, "not_before": happening.not_before}
            yield EventView(kind="retry", at=happening.at, data=data | _error(happening.error))
        case Ended():
            error = happening.outcome.error if happening.outcome else None
            yield EventView(kind="ended", at=happening.at, data={"state": happening.state} | _error(error))
        case AttemptEnded() | Accepted() | ModelsUsed():
            return


def asked_event(happening: ApprovalAsked) -> EventView:
    """A run waits for a person."""
    data = {
        "approval": happening.approval_id,
        "tool": happening.tool,
        "arguments_sha256": happening.arguments_sha256,
        "expires_at": happening.expires_at,
    }
    return EventView(kind="asked", at=happening.at, data=data)


def _ended(invocation: Invocation) -> EventView:
    error = invocation.outcome.error if invocation.outcome else None
    return EventView(kind="ended", at=invocation.ended_at or 0.0, data={"state": invocation.state} | _error(error))


def _attempt_end(attempt: Attempt) -> dict[str, object]:
    return {
        "fence": attempt.fence,
        "ending": attempt.ending,
        "code": attempt.error_code,
        "message": attempt.error_message,
    }


def _error(error: ErrorInfo | None) -> dict[str, object]:
    return {} if error is None else {"code": error.code, "message": error.message}
