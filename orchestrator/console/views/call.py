"""One call: its life as a timeline, why it is where it is, what came of it, and what may be done with it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.cli.content import parts_of
from orchestrator.cli.durations import took
from orchestrator.cli.shortid import short
from orchestrator.console.inside import UNAUTHORIZED, Refused
from orchestrator.console.page import Act, Done, Page, Question, Visit
from orchestrator.console.words import BUSY, CALM, WARN, cut, tone
from tasks.approval import shown, shown_line
from tasks.invocation import TERMINAL, State
from tasks.scopes import Scope
from tasks.wire import ArgumentsView, AttemptView, ExplainView, InvocationView

ONE = "/calls/{id}"
GIVEN_BYTES = 64 * 1024
"""Of arguments that a page shows; what is longer is in the blob store, and no page is read that far."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened: when, how it bears, in a word, and what more there is to say."""

    at: float
    tone: str
    title: str
    details: Sequence[str] = ()


async def load(visit: Visit) -> Mapping[str, Any]:
    """The call, whole."""
    call_id = visit.path["id"]
    call = await visit.api.get(f"/v1/invocations/{call_id}", InvocationView)
    why = await visit.api.get(f"/v1/invocations/{call_id}/why", ExplainView)
    is_over = call.state in TERMINAL
    return {
        "call": call,
        "why": why,
        "steps": list(_steps(call)),
        "answer": _answer(call),
        "given": None if visit.is_part else await _given(visit, call_id),
        "is_over": is_over,
        "spent_usd": _spent(call),
        "may_cancel": visit.may(Scope.INVOCATIONS_WRITE) and not is_over and not call.cancel_requested,
        "may_retry": visit.may(Scope.INVOCATIONS_WRITE) and is_over,
    }


@dataclass(frozen=True, slots=True)
class Given:
    """What it was called with: each argument's name and text, as far as anybody reads them on a page."""

    size_bytes: int
    arguments: Sequence[tuple[str, str]] | None
    """None: they are too long for a page."""


async def _given(visit: Visit, call_id: str) -> Given | None:
    """None: they are there no more, or do not open; the rest of the page is."""
    try:
        found = await visit.api.get(f"/v1/invocations/{call_id}/arguments", ArgumentsView, {"max_bytes": GIVEN_BYTES})
    except Refused as refused:
        if refused.status == UNAUTHORIZED:
            raise
        return None
    if found.arguments is None:
        return Given(found.size_bytes, None)
    return Given(found.size_bytes, [(shown_line(name), _text(value)) for name, value in found.arguments.items()])


def _text(value: object) -> str:
    """Text as it is, the rest as JSON; what could deceive a reader is escaped."""
    return cut(shown(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)))


def _steps(call: InvocationView) -> Iterator[Step]:
    """Oldest first."""
    of = f" for project {call.project}" if call.project else ""
    yield Step(call.accepted_at, CALM, "accepted", (f"by {call.principal}{of}; from here on it is durable",))
    for attempt in call.attempts:
        yield from _of_attempt(call, attempt)
    if call.state in TERMINAL and call.ended_at is not None:
        details = _ran(call.attempts[-1]) if call.attempts else []
        details += [] if call.error is None else [f"{call.error.message} [{call.error.code}]"]
        yield Step(call.ended_at, tone(call.state), str(call.state), details)


def _of_attempt(call: InvocationView, attempt: AttemptView) -> Iterator[Step]:
    where = attempt.node or f"any node of {attempt.pool}"
    reasons = attempt.reasons if attempt.fence < call.fence else ()  # the last one's are on the page as its "why"
    yield Step(attempt.released_at, CALM, f"released to {where}", (f"attempt {attempt.fence}", *reasons))
    if attempt.started_at is not None:
        queued = took(attempt.started_at - attempt.released_at)
        yield Step(attempt.started_at, BUSY, f"started on {where}", (f"{queued} after its release",))
    is_last = attempt.fence == call.fence and call.state in TERMINAL
    if attempt.ended_at is not None and attempt.ending is not None and not is_last:
        said = [] if attempt.error is None else [f"{attempt.error.message} [{attempt.error.code}]"]
        title = f"attempt {attempt.fence} ended: {attempt.ending.replace('_', ' ')}"
        yield Step(attempt.ended_at, WARN, title, [*_ran(attempt), *said])


def _ran(attempt: AttemptView) -> list[str]:
    if attempt.started_at is None or attempt.ended_at is None:
        return []
    return [f"ran for {took(attempt.ended_at - attempt.started_at)}"]


def _answer(call: InvocationView) -> list[tuple[str, str]]:
    """Parts of the result: a note and a text."""
    if call.result is None:
        return []
    return [(part.note or "", cut(part.text or "")) for part in parts_of(call.result)]


def _spent(call: InvocationView) -> float | None:
    known = [one.cost_usd for one in call.spent if one.cost_usd is not None]
    return sum(known) if known else None


async def ask_cancel(visit: Visit) -> Question:
    """Before a call is cancelled."""
    call = await visit.api.get(f"/v1/invocations/{visit.path['id']}", InvocationView)
    is_waiting = call.state is State.WAITING
    follows = (
        "It ends now." if is_waiting else f"{call.node or 'Its node'} is told to stop it; what it did already stays."
    )
    name = f"{call.tool} {short(call.id)}"
    return Question(
        f"Cancel {name}?", [f"It is {call.state}.", follows], "Cancel the call", f"/calls/{call.id}", is_grave=True
    )


async def cancel(visit: Visit) -> Done:
    """End it."""
    call = await visit.api.post(f"/v1/invocations/{visit.path['id']}/cancel", InvocationView)
    if call.state is State.CANCELLED:
        return Done("The call is cancelled.", f"/calls/{call.id}")
    if call.state in TERMINAL:
        return Done(f"The call had {call.state} already; nothing to cancel.", f"/calls/{call.id}")
    return Done(f"The call is {call.state} on {call.node}, which is told to stop.", f"/calls/{call.id}")


async def ask_retry(visit: Visit) -> Question:
    """Before a call is made again."""
    call = await visit.api.get(f"/v1/invocations/{visit.path['id']}", InvocationView)
    sentences = [f"It {call.state}. A new call with the same arguments is made, linked to this one."]
    if call.state is State.LOST:
        sentences.append("This one may have run, and its effect is unknown: it may then have happened twice.")
    return Question(f"Call {call.tool} again?", sentences, "Call again", f"/calls/{call.id}")


async def retry(visit: Visit) -> Done:
    """A new call of the same."""
    old = visit.path["id"]
    call = await visit.api.post(f"/v1/invocations/{old}/replay", InvocationView)
    return Done(f"{short(old)} is called again as {short(call.id)}.", f"/calls/{call.id}")


PAGE = Page(
    ONE,
    "Call",
    "call.html",
    load,
    scope=Scope.INVOCATIONS_READ,
    acts=(
        Act(f"{ONE}/cancel", Scope.INVOCATIONS_WRITE, ask_cancel, cancel),
        Act(f"{ONE}/retry", Scope.INVOCATIONS_WRITE, ask_retry, retry),
    ),
    feed="/v1/invocations/{id}/events",
)
