"""Whatever happens, in whatever order and grouping: one end, growing fences, tries that were released."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable
from dataclasses import dataclass, field, replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.testing import AT, HOLDER, again, failure, new, release_of, success, unreachable
from orchestrator.ledger.values import Started
from tasks.errors import FleetError
from tasks.invocation import OUTSTANDING, TERMINAL, TRANSITIONS, Call, Invocation, State
from tasks.retry import RetryPolicy
from tasks.testing.clock import FakeClock

NAMES = ("invocation-1", "invocation-2")
NODES = ("n1", "n2", None)
KINDS = ("accept", "release", "claim", "start", "succeed", "fail", "again", "unreachable", "cancel", "expire")


@dataclass(frozen=True, slots=True)
class Step:
    """One operation, by anybody, on what it believes to be current."""

    kind: str
    name: str
    fence: int
    node: str | None


STEPS = st.builds(
    Step, kind=st.sampled_from(KINDS), name=st.sampled_from(NAMES), fence=st.integers(0, 4), node=st.sampled_from(NODES)
)
TURNS = st.lists(st.lists(STEPS, min_size=1, max_size=5), max_size=12)
"""What is submitted in one loop turn shares a commit."""


@dataclass(slots=True)
class Seen:
    """What was observed of one Invocation, turn after turn."""

    last: Invocation | None = None
    ends: list[State] = field(default_factory=list)


def perform(ledger: Ledger, step: Step, epoch: int) -> Awaitable[object]:
    """The operation that a step stands for."""
    match step.kind:
        case "accept":
            return ledger.accept([new(invocation_id=step.name, expires_at=AT + 5)])
        case "release":
            return ledger.release([release_of(step.name, fence=step.fence, node=step.node)], epoch)
        case "claim":
            return ledger.claim(step.node or "n1", "inc-1", 1, [(step.name, step.fence)])
        case "start":
            return ledger.mark_started([Started(step.name, step.fence, step.node or "n1", AT + 1)])
        case "unreachable":
            return ledger.settle([unreachable(step.name, fence=step.fence)])
        case "cancel":
            return ledger.cancel(step.name, None, AT + 3)
        case "expire":
            return ledger.expire([step.name], AT + 6)
        case _:
            wanted = {"succeed": success, "fail": failure, "again": again}[step.kind]
            return ledger.settle([wanted(step.name, fence=step.fence, node=step.node)])


@settings(max_examples=60)
@given(turns=TURNS)
def test_no_order_of_events_breaks_an_invocation(sqlite_template: Path, turns: list[list[Step]]) -> None:
    """Random operations with stale fences and wrong nodes: an end is final, fences grow, tries never pass them."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(sqlite_template, folder)
        asyncio.run(_live(f"sqlite:///{folder}/ledger.db", turns))


async def _live(url: str, turns: list[list[Step]]) -> None:
    ledger = await Ledger.open(url, clock=FakeClock())
    epoch = await ledger.take_epoch(HOLDER, 60.0)
    assert epoch is not None
    seen = {name: Seen() for name in NAMES}
    try:
        await ledger.accept([new(invocation_id=NAMES[0], expires_at=AT + 5)])
        for turn in turns:
            answers = await asyncio.gather(*(perform(ledger, step, epoch) for step in turn), return_exceptions=True)
            assert not [one for one in answers if isinstance(one, Exception) and not isinstance(one, FleetError)]
            for name, one in seen.items():
                await _look(ledger, name, one)
    finally:
        await ledger.close()


async def _look(ledger: Ledger, name: str, seen: Seen) -> None:
    try:
        now = await ledger.get(name)
    except FleetError:
        assert seen.last is None, "it was there before"
        return
    before, seen.last = seen.last, now
    _is_of_one_piece(now)
    if before is None:
        return
    assert now.fence >= before.fence
    assert now.tries >= before.tries
    assert now.attempts[: len(before.attempts) - 1] == before.attempts[:-1], "history changed"
    if before.state in TERMINAL:
        assert now == before, "it ended twice"
    assert now.state is before.state or now.state in _reachable(before.state)


def _is_of_one_piece(now: Invocation) -> None:
    assert now.tries <= now.fence
    assert [attempt.fence for attempt in now.attempts] == list(range(1, now.fence + 1))
    is_open = [attempt.ended_at is None for attempt in now.attempts]
    assert is_open == [False] * (now.fence - 1) + [now.state in OUTSTANDING] * (now.fence > 0)
    assert (now.state in TERMINAL) == (now.outcome is not None) == (now.ended_at is not None)
    assert now.outcome is None or now.outcome.ending == now.state.value


def _reachable(state: State) -> frozenset[State]:
    """Where any number of moves may lead."""
    found: frozenset[State] = frozenset()
    ahead = TRANSITIONS[state]
    while not ahead <= found:
        found |= ahead
        ahead = frozenset().union(*(TRANSITIONS[one] for one in found))
    return found


POLICIES = st.builds(
    RetryPolicy,
    attempts=st.integers(1, 9),
    first_wait_s=st.floats(0, 100),
    factor=st.floats(1, 10),
    cap_s=st.floats(0, 1000),
    retry_tool_errors=st.booleans(),
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
MAYBE_TIMES = st.none() | st.floats(0, 4e9)
PLAIN = st.builds(
    Call,
    tool=TEXTS,
    arguments_json=TEXTS,
    project=st.none() | TEXTS,
    requires=st.frozensets(TEXTS, max_size=3),
    pool=st.none() | TEXTS,
    lane=st.none(),
    priority=st.integers(0, 9),
    not_before=MAYBE_TIMES,
    expires_at=MAYBE_TIMES,
    timeout_s=MAYBE_TIMES,
    retry=st.none() | POLICIES,
    trace_id=st.none() | TEXTS,
    into=st.none() | TEXTS,
    meta_json=st.none() | TEXTS,
)
CALLS = st.recursive(
    PLAIN,
    lambda inner: st.builds(lambda call, then: replace(call, then=tuple(then)), PLAIN, st.lists(inner, max_size=3)),
    max_leaves=6,
)


@settings(max_examples=25)
@given(calls=st.lists(CALLS, min_size=1, max_size=5))
def test_any_call_reads_back_equal(sqlite_template: Path, calls: list[Call]) -> None:
    """Whatever a caller may ask, with whatever chain behind it, is kept as it was asked."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(sqlite_template, folder)
        asyncio.run(_round_trip(f"sqlite:///{folder}/ledger.db", calls))


async def _round_trip(url: str, calls: list[Call]) -> None:
    ledger = await Ledger.open(url, clock=FakeClock())
    rows = [
        replace(row, invocation=replace(row.invocation, call=call)) for row, call in ((new(), one) for one in calls)
    ]
    await ledger.accept(rows)
    assert [await ledger.get(row.invocation.id) for row in rows] == [row.invocation for row in rows]
    await ledger.close()
