"""The orchestrator's spans of an Invocation, made from facts when it has ended: nothing is held open.

A listener of `Happenings`. What it remembers of an Invocation is a copy of what the ledger has, so that an end costs
no read: after a restart, a change of leader, or past `KNOWN_MAX`, the ledger is asked. Each attempt is a span, child
of the Invocation's, with a `wait` before it; all in one trace, whoever ran them. Refuses arguments, results and the
text of errors. Source: OpenTelemetry, semantic conventions for messaging spans and generative AI, 1.41.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace

import structlog

from orchestrator.happenings import Accepted, AttemptEnded, AttemptReleased, Ended, Happening
from tasks.clock import Clock
from tasks.errors import FleetError
from tasks.invocation import Attempt, Invocation
from tasks.tracing import (
    ACCEPT,
    ATTEMPT,
    INVOCATION,
    PRODUCER,
    SERVER,
    SETTLE,
    WAIT,
    Span,
    Spans,
    is_sampled,
    is_trace_id,
    parent_of,
    span_id,
)

log = structlog.get_logger("mcpfleet.spans")
KNOWN_MAX = 20_000
"""Invocations that have not ended and are remembered; about 0.5 KB each."""
SLOW_S = 0.01
"""Below it `accept` and `settle` are no spans: they would be two of seven, and say nothing."""
SMALL_CHARS = 512
LOOKUPS_MAX = 64
"""Reads of the ledger at once; what ends beyond them has no spans."""


@dataclass(slots=True)
class _Known:
    """What was heard of one Invocation that has not ended."""

    invocation: Invocation
    queues: dict[int, str] = field(default_factory=dict)
    attempts: list[Attempt] = field(default_factory=list)


class SpanFeed:
    """Hears what happens and puts spans."""

    def __init__(self, spans: Spans, *, get: Callable[[str], Awaitable[Invocation]], clock: Clock) -> None:
        self._spans, self._get, self._clock = spans, get, clock
        self._known: OrderedDict[str, _Known | None] = OrderedDict()
        """None: its trace is not sampled."""
        self._lookups: set[asyncio.Task[None]] = set()

    def hear(self, happening: Happening) -> None:
        """In the event loop."""
        match happening:
            case Accepted():
                self._accepted(happening.invocation)
            case AttemptReleased():
                if (known := self._known.get(happening.invocation_id)) is not None:
                    known.queues[happening.fence] = happening.queue
            case AttemptEnded():
                if (known := self._known.get(happening.invocation_id)) is not None:
                    known.attempts.append(_attempt_of(happening, known.queues.get(happening.fence, "")))
                    self._put_slow(settle_span(known.invocation, happening, self._clock.wall_s()))
            case Ended():
                self._ended(happening)
            case _:
                return

    async def settled(self) -> None:
        """Until every read of the ledger that is under way has ended."""
        while self._lookups:
            await asyncio.wait(self._lookups)

    def _accepted(self, invocation: Invocation) -> None:
        known = _Known(_light(invocation)) if self._is_kept(invocation) else None
        self._known[invocation.id] = known
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)
        if known is not None:
            self._put_slow(accept_span(invocation, self._clock.wall_s()))

    def _ended(self, ended: Ended) -> None:
        if ended.invocation_id in self._known:
            known = self._known.pop(ended.invocation_id)
            if known is None:
                return
            if ended.last is not None and len(known.attempts) == ended.last.fence:
                tried, so = tuple(known.attempts), ended.outcome
                self._put(replace(known.invocation, state=ended.state, ended_at=ended.at, outcome=so, attempts=tried))
                return
        if len(self._lookups) >= LOOKUPS_MAX:
            self._spans.lost(1)
            return
        reading = asyncio.get_running_loop().create_task(self._look_up(ended.invocation_id))
        self._lookups.add(reading)
        reading.add_done_callback(self._lookups.discard)

    async def _look_up(self, invocation_id: str) -> None:
        try:
            invocation = await self._get(invocation_id)
        except FleetError as error:
            self._spans.lost(1)
            log.info("spans_not_made", invocation_id=invocation_id, error=error.message)
            return
        if self._is_kept(invocation):
            self._put(invocation)

    def _put(self, invocation: Invocation) -> None:
        for span in spans_of(invocation):
            self._spans.put(span)

    def _put_slow(self, span: Span) -> None:
        if span.end_s - span.start_s >= SLOW_S:
            self._spans.put(span)

    def _is_kept(self, invocation: Invocation) -> bool:
        call = invocation.call
        if call.trace_id is None or not is_trace_id(call.trace_id):
            return False
        return is_sampled(call.trace_id, call.trace_parent, self._spans.ratio)


def _light(invocation: Invocation) -> Invocation:
    """Without what is large; most calls are small, and a copy costs more than it saves."""
    call = invocation.call
    if len(call.arguments_json) <= SMALL_CHARS and call.meta_json is None and not call.then:
        return invocation
    return replace(invocation, call=replace(call, arguments_json="{}", meta_json=None, then=()))


def spans_of(invocation: Invocation) -> Iterator[Span]:
    """All that the ledger's rows tell of an Invocation that has ended: it, each attempt, each wait before one."""
    ended_at = invocation.accepted_at if invocation.ended_at is None else invocation.ended_at
    yield invocation_span(invocation, ended_at)
    due_at = max(invocation.accepted_at, invocation.call.not_before or 0.0)
    for attempt in invocation.attempts:
        yield _below(invocation, WAIT, attempt.fence, "wait", (min(due_at, attempt.released_at), attempt.released_at))
        yield attempt_span(invocation, attempt, ended_at)
        due_at = ended_at if attempt.ended_at is None else attempt.ended_at
    if due_at < ended_at:  # it ended while it waited: cancelled, or its deadline came
        yield _below(invocation, WAIT, invocation.fence + 1, "wait", (due_at, ended_at))


def invocation_span(invocation: Invocation, ended_at: float) -> Span:
    """The whole of it, from accepted to its end. Its parent is the caller's span."""
    call, outcome = invocation.call, invocation.outcome
    error = None if outcome is None or outcome.ending == "succeeded" else outcome.ending
    if outcome is not None and outcome.error is not None:
        error = outcome.error.code
    return Span(
        name=f"invoke {call.tool}",
        trace_id=call.trace_id or "",
        span_id=span_id(invocation.id, INVOCATION),
        parent_id=parent_of(call.trace_parent)[0],
        start_s=invocation.accepted_at,
        end_s=ended_at,
        kind=SERVER,
        attributes={
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": call.tool,
            "mcpfleet.invocation_id": invocation.id,
            "mcpfleet.project": call.project,
            "mcpfleet.tenant": invocation.principal.tenant,
            "mcpfleet.principal": invocation.principal.id,
            "mcpfleet.lane": invocation.lane.value,
            "mcpfleet.state": invocation.state.value,
            "mcpfleet.attempts": len(invocation.attempts),
            "mcpfleet.replay_of": invocation.replay_of,
            "mcpfleet.parent": call.parent,
        },
        error=error,
    )


def attempt_span(invocation: Invocation, attempt: Attempt, ended_at: float) -> Span:
    """One attempt, from its release to its end. The node's own span is below it."""
    span = _below(
        invocation,
        ATTEMPT,
        attempt.fence,
        f"attempt {invocation.call.tool}",
        (attempt.released_at, ended_at if attempt.ended_at is None else attempt.ended_at),
    )
    started_at = attempt.started_at
    attributes = {
        "mcpfleet.invocation_id": invocation.id,
        "messaging.system": "celery",
        "messaging.operation.type": "send",
        "messaging.operation.name": "release",
        "messaging.destination.name": attempt.queue or None,
        "mcpfleet.fence": attempt.fence,
        "mcpfleet.node": attempt.node,
        "mcpfleet.pool": attempt.pool,
        "mcpfleet.ending": attempt.ending,
        "mcpfleet.started_s": None if started_at is None else round(started_at - attempt.released_at, 6),
    }
    failed = attempt.error_code or (None if attempt.ending == "succeeded" else attempt.ending)
    return replace(span, kind=PRODUCER, attributes=attributes, error=failed)


def accept_span(invocation: Invocation, now_s: float) -> Span:
    """From the check of a call until it was durable."""
    return _below(invocation, ACCEPT, 0, "accept", (invocation.accepted_at, now_s))


def settle_span(invocation: Invocation, ended: AttemptEnded, now_s: float) -> Span:
    """From the node's word that an attempt ended until the ledger had it."""
    return _below(invocation, SETTLE, ended.fence, "settle", (ended.at, now_s))


def _below(invocation: Invocation, part: str, fence: int, name: str, times: tuple[float, float]) -> Span:
    above = span_id(invocation.id, fence, ATTEMPT) if part == SETTLE else span_id(invocation.id, INVOCATION)
    return Span(
        name=name,
        trace_id=invocation.call.trace_id or "",
        span_id=span_id(invocation.id, fence, part),
        parent_id=above,
        start_s=times[0],
        end_s=times[1],
    )


def _attempt_of(ended: AttemptEnded, queue: str) -> Attempt:
    return Attempt(
        invocation_id=ended.invocation_id,
        fence=ended.fence,
        node=ended.node,
        incarnation=None,
        pool=ended.pool,
        lane=ended.lane,
        queue=queue,
        released_at=ended.released_at,
        started_at=ended.started_at,
        ended_at=ended.at,
        ending=ended.ending,
        error_code=ended.error.code if ended.error else None,
    )
