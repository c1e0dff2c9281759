"""The orchestrator's spans of an Invocation, made from facts when it has ended: nothing is held open.

A listener of `Happenings`. What it remembers of an Invocation is a copy of what the ledger has, so that an end costs
no read: after a restart, a change of leader, or past `KNOWN_MAX`, the ledger is asked. Each attempt is a span, child
of the Invocation's, with a `wait` before it; all in one trace, whoever ran them. Refuses arguments, results and the
text of errors. Source: OpenTelemetry, semantic conventions for messaging spans and generative AI, 1.41.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import structlog

from orchestrator.happenings import Accepted, AttemptEnded, AttemptReleased, Ended, Happening
from tasks.clock import Clock
from tasks.errors import FleetError
from tasks.invocation import Attempt, Invocation, State
from tasks.outcome import Outcome
from tasks.tracing import (
    ACCEPT,
    ATTEMPT,
    INVOCATION,
    PRODUCER,
    SERVER,
    SETTLE,
    WAIT,
    Attribute,
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
SLOW_S = 0.05
"""Below it `accept` and `settle` are no spans: two of seven would say nothing. Half of what a short call may take."""
SMALL_CHARS = 512
LOOKUPS_MAX = 64
"""Reads of the ledger at once; what ends beyond them has no spans."""


@dataclass(slots=True)
class _Known:
    """What was heard of one Invocation that has not ended."""

    invocation: Invocation
    queues: dict[int, str] = field(default_factory=dict)
    ended: list[AttemptEnded] = field(default_factory=list)


class _Told(NamedTuple):
    """An Invocation that has ended, and how: from memory or from the ledger."""

    invocation: Invocation
    state: State
    ended_at: float
    outcome: Outcome | None
    attempts: Sequence[Attempt]


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
                    known.ended.append(happening)
                    now_s = self._clock.wall_s()
                    if now_s - happening.at >= SLOW_S:
                        self._spans.put(settle_span(known.invocation, happening, now_s))
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
            now_s = self._clock.wall_s()
            if now_s - invocation.accepted_at >= SLOW_S:
                self._spans.put(accept_span(known.invocation, now_s))

    def _ended(self, ended: Ended) -> None:
        if ended.invocation_id in self._known:
            known = self._known.pop(ended.invocation_id)
            if known is None:
                return
            if ended.last is not None and len(known.ended) == ended.last.fence:
                self._spans.put_later(_count_of(len(known.ended)), partial(_of_memory, known, ended))
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
            self._spans.put_later(_count_of(len(invocation.attempts)), partial(spans_of, _light(invocation)))

    def _is_kept(self, invocation: Invocation) -> bool:
        call = invocation.call
        if call.trace_id is None or not is_trace_id(call.trace_id):
            return False
        return is_sampled(call.trace_id, call.trace_parent, self._spans.ratio)


def _count_of(attempts: int) -> int:
    """Spans of a call, for what their loss is counted as: it, its attempts, a wait before each."""
    return 1 + 2 * attempts


def _of_memory(known: _Known, ended: Ended) -> Iterator[Span]:
    attempts = [_attempt_of(one, known.queues.get(one.fence, "")) for one in known.ended]
    return _spans(_Told(known.invocation, ended.state, ended.at, ended.outcome, attempts))


def _light(invocation: Invocation) -> Invocation:
    """Without what is large; most calls are small, and a copy costs more than it saves."""
    call = invocation.call
    if len(call.arguments_json) <= SMALL_CHARS and call.meta_json is None and not call.then:
        return invocation
    return replace(invocation, call=replace(call, arguments_json="{}", meta_json=None, then=()))


def spans_of(invocation: Invocation) -> Iterator[Span]:
    """All that the ledger's rows tell of an Invocation that has ended: it, each attempt, each wait before one."""
    at = invocation.accepted_at if invocation.ended_at is None else invocation.ended_at
    return _spans(_Told(invocation, invocation.state, at, invocation.outcome, invocation.attempts))


def _spans(told: _Told) -> Iterator[Span]:
    invocation, ended_at = told.invocation, told.ended_at
    whole = span_id(invocation.id, INVOCATION)
    yield _invocation_span(told, whole)
    due_at = max(invocation.accepted_at, invocation.call.not_before or 0.0)
    for attempt in told.attempts:
        until = ended_at if attempt.ended_at is None else attempt.ended_at
        released_at = attempt.released_at
        yield _below(invocation, WAIT, attempt.fence, whole, (min(due_at, released_at), released_at))
        yield _attempt_span(invocation, attempt, whole, until)
        due_at = until
    if due_at < ended_at:  # it ended while it waited: cancelled, or its deadline came
        yield _below(invocation, WAIT, invocation.fence + 1, whole, (due_at, ended_at))


def _invocation_span(told: _Told, own: str) -> Span:
    """The whole of it, from accepted to its end. Its parent is the caller's span."""
    invocation, outcome = told.invocation, told.outcome
    call, error = invocation.call, None if outcome is None or outcome.ending == "succeeded" else outcome.ending
    if outcome is not None and outcome.error is not None:
        error = outcome.error.code
    return Span(
        name=f"invoke {call.tool}",
        trace_id=call.trace_id or "",
        span_id=own,
        parent_id=parent_of(call.trace_parent)[0],
        start_s=invocation.accepted_at,
        end_s=told.ended_at,
        kind=SERVER,
        attributes={
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": call.tool,
            "mcpfleet.invocation_id": invocation.id,
            "mcpfleet.project": call.project,
            "mcpfleet.tenant": invocation.principal.tenant,
            "mcpfleet.principal": invocation.principal.id,
            "mcpfleet.lane": invocation.lane.value,
            "mcpfleet.state": told.state.value,
            "mcpfleet.attempts": len(told.attempts),
            "mcpfleet.replay_of": invocation.replay_of,
            "mcpfleet.parent": call.parent,
        },
        error=error,
    )


def _attempt_span(invocation: Invocation, attempt: Attempt, whole: str, until: float) -> Span:
    """One attempt, from its release to its end. The node's own span is below it."""
    started_at = attempt.started_at
    attributes: dict[str, Attribute | None] = {
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
    return Span(
        name=f"attempt {invocation.call.tool}",
        trace_id=invocation.call.trace_id or "",
        span_id=span_id(invocation.id, attempt.fence, ATTEMPT),
        parent_id=whole,
        start_s=attempt.released_at,
        end_s=until,
        kind=PRODUCER,
        attributes=attributes,
        error=attempt.error_code or (None if attempt.ending == "succeeded" else attempt.ending),
    )


def accept_span(invocation: Invocation, now_s: float) -> Span:
    """From the check of a call until it was durable."""
    return _below(invocation, ACCEPT, 0, span_id(invocation.id, INVOCATION), (invocation.accepted_at, now_s))


def settle_span(invocation: Invocation, ended: AttemptEnded, now_s: float) -> Span:
    """From the node's word that an attempt ended until the ledger had it."""
    return _below(invocation, SETTLE, ended.fence, span_id(invocation.id, ended.fence, ATTEMPT), (ended.at, now_s))


def _below(invocation: Invocation, part: str, fence: int, above: str, times: tuple[float, float]) -> Span:
    """A part that is named as it is."""
    own = span_id(invocation.id, fence, part)
    return Span(part, invocation.call.trace_id or "", own, above, *times)


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
