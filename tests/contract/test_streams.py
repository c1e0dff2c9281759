"""The orchestrator's ear on a real Redis: what one node says badly holds up nobody."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Redis

from orchestrator.dispatch.open_attempts import OpenAttempts
from orchestrator.happenings import Happening, Progressed
from orchestrator.ledger.values import Outstanding
from orchestrator.redis_client import redis_of
from orchestrator.settling.streams import FORGET_AGAIN_S, NodeStreams
from tasks.clock import SystemClock
from tasks.errors import LedgerDown
from tasks.invocation import Lane, State
from tasks.ledger_events import FIELD, Finished, Progress, Saved, pack
from tasks.node import Control
from tasks.outcome import SPENT_MIDWAY, ErrorInfo, Failure, Outcome
from tasks.queues import control_stream, events_stream, node_queue
from tasks.testing.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from orchestrator.ledger.values import Started

DONE = Outcome("succeeded", result_json='{"content":[]}')


class Judge:
    """A settler that cannot take one Invocation, and whose ledger may be away."""

    def __init__(self) -> None:
        self.settled: list[str] = []
        self.most = 0
        """Events that came at once."""
        self.is_down_for = 0
        self._grew = asyncio.Event()

    async def finished(self, events: Sequence[tuple[str, Finished]]) -> None:
        """Take them, all or none."""
        self.most = max(self.most, len(events))
        if self.is_down_for:
            self.is_down_for -= 1
            raise LedgerDown("the test says so")
        if any(event.invocation == "bad" for _, event in events):
            raise ZeroDivisionError("a defect of ours")
        self.settled += [event.invocation for _, event in events]
        self._grew.set()

    async def until(self, count: int) -> None:
        """Until so many are settled."""
        while len(self.settled) < count:
            self._grew.clear()
            await self._grew.wait()

    async def started(self, events: Sequence[tuple[str, Started]]) -> None:
        """Nobody says it here."""


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """Empty."""
    client = redis_of(redis_url)
    await client.flushdb()
    yield client
    await client.aclose()


def at_any(_invocation: str, _fence: int, _node: str) -> bool:
    """Every attempt is at every node."""
    return True


def _streams(
    redis: Redis, judge: Judge, nodes: Callable[[], list[str]], leads: Callable[[], bool] = lambda: True
) -> NodeStreams:
    return NodeStreams(
        redis, settling=judge, nodes=nodes, tell=lambda _: None, clock=SystemClock(), leads=leads, is_at=at_any
    )


async def _settled(redis: Redis, judge: Judge, *said: tuple[str, str]) -> list[tuple[str, str]]:
    """Nodes say that Invocations ended; who was told that which of them is settled."""
    nodes = list(dict.fromkeys(node for node, _ in said))
    for node, invocation in said:
        event: Any = pack([Finished(invocation, 1, 2.0, 1.0, DONE)])
        await redis.xadd(events_stream(node), {FIELD: event})
    streams = _streams(redis, judge, lambda: nodes)
    reading = asyncio.create_task(streams.run())
    told: list[tuple[str, str]] = []
    try:
        async with asyncio.timeout(20):
            while {invocation for _, invocation in told} != {invocation for _, invocation in said} - {"bad"}:
                await asyncio.sleep(0.01)
                told = [line for node in nodes for line in await _told(redis, node)]
    finally:
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading
    return told


async def _told(redis: Redis, node: str) -> list[tuple[str, str]]:
    entries: Any = await redis.xrange(control_stream(node))
    controls = [Control.model_validate_json(fields[FIELD]) for _, fields in entries]
    return [(node, ref.invocation) for control in controls for ref in control.refs]


async def test_an_outcome_that_cannot_be_taken_holds_up_no_other(redis: Redis) -> None:
    """Neither of its own node nor of another; and its node is not told that it is settled."""
    judge = Judge()
    told = await _settled(redis, judge, ("a1", "one"), ("a1", "bad"), ("a1", "two"), ("b1", "three"))
    assert sorted(told) == [("a1", "one"), ("a1", "two"), ("b1", "three")]
    assert sorted(judge.settled) == ["one", "three", "two"]


async def test_a_ledger_that_is_away_loses_nothing(redis: Redis) -> None:
    """The same events come again until it is back."""
    judge = Judge()
    judge.is_down_for = 1
    assert await _settled(redis, judge, ("a1", "one"), ("b1", "two")) == [("a1", "one"), ("b1", "two")]
    assert sorted(judge.settled) == ["one", "two"]


async def test_what_was_saved_of_a_session_is_noted_before_its_attempt_is_settled(redis: Redis) -> None:
    """Said once by itself, and again with the failure: one of the two may be lost. An answer needs none."""
    judge, noted = Judge(), list[tuple[str, tuple[str, ...]]]()

    async def saved(events: Sequence[tuple[str, Saved]]) -> None:
        noted.extend((event.blob, tuple(judge.settled)) for _, event in events)

    waits = Outcome("failed", error=ErrorInfo(SPENT_MIDWAY, "spent", Failure.WAIT_UNTIL, 60.0))
    for event in (Finished("one", 1, 2.0, 1.0, waits, (3, "digest")), Finished("two", 1, 2.0, 1.0, DONE, (1, "none"))):
        await redis.xadd(events_stream("a1"), {FIELD: pack([event])})
    streams = NodeStreams(
        redis,
        settling=judge,
        nodes=lambda: ["a1"],
        tell=lambda _: None,
        clock=SystemClock(),
        leads=lambda: True,
        is_at=at_any,
        saved=saved,
    )
    reading = asyncio.create_task(streams.run())
    try:
        async with asyncio.timeout(20):
            await judge.until(2)
    finally:
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading
    assert noted == [("digest", ())]


async def test_a_master_whose_clock_is_behind_is_heard(redis: Redis) -> None:
    """After a failover entries are counted by another clock: what it takes now is older than what was read."""
    judge, far_ahead = Judge(), "9999999999999-5"
    nodes = ["a1", "b1"]
    streams = _streams(redis, judge, lambda: nodes)
    reading = asyncio.create_task(streams.run())
    try:
        for node in nodes:
            await redis.xadd(events_stream(node), _ended(f"{node} before"), id=far_ahead)
        await _heard(judge, 2)
        await redis.delete(events_stream("a1"))
        await redis.xadd(events_stream("a1"), _ended("a1 after"))
        await _heard(judge, 3)
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    assert sorted(judge.settled) == ["a1 after", "a1 before", "b1 before"], "and nothing is read twice for it"


def _ended(invocation: str) -> dict[Any, Any]:
    return {FIELD: pack([Finished(invocation, 1, 2.0, 1.0, DONE)])}


async def _heard(judge: Judge, events: int) -> None:
    async with asyncio.timeout(20):
        while len(judge.settled) < events:  # noqa: ASYNC110 - the judge gives no event
            await asyncio.sleep(0.01)


async def test_a_reader_that_is_cancelled_ends(redis_url: str) -> None:
    """Whatever it was doing: an orchestrator that is to stop must not wait for a loop that goes on."""
    for turn in range(150):
        async with redis_of(redis_url) as redis:
            streams = _streams(redis, Judge(), list)
            reading = asyncio.create_task(streams.run())
            await asyncio.sleep(turn * 0.0001)
            reading.cancel()
            done, _ = await asyncio.wait([reading], timeout=10)
            reading.cancel()
            assert done, f"still reading after a cancel at {turn * 0.1:.1f} ms"


async def test_who_cannot_prove_that_it_leads_acknowledges_nothing(redis: Redis) -> None:
    """A successor may have released what a node speaks of; read again once it is proved."""
    event: Any = pack([Finished("one", 1, 2.0, 1.0, DONE)])
    await redis.xadd(events_stream("n1"), {FIELD: event})
    judge, asked = Judge(), asyncio.Event()
    proof = [False]

    def leads() -> bool:
        asked.set()
        return proof[0]

    reading = asyncio.create_task(_streams(redis, judge, lambda: ["n1"], leads).run())
    async with asyncio.timeout(20):
        await asked.wait()
        assert judge.settled == []
        proof[0] = True
        while not judge.settled:  # noqa: ASYNC110 - the judge of these tests gives no event
            await asyncio.sleep(0.01)
    reading.cancel()
    with suppress(asyncio.CancelledError):
        await reading
    assert judge.settled == ["one"]


async def test_what_piled_up_is_read_in_parts(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis may hold what all nodes told in hours: one answer with all of it would never come in time."""
    monkeypatch.setattr("orchestrator.settling.streams.READ_MAX_ENTRIES", 2)
    judge, said = Judge(), [("n1", f"i{number}") for number in range(5)]
    assert sorted(await _settled(redis, judge, *said)) == sorted(said)
    assert judge.most == 2


async def test_nobody_writes_to_a_node_that_left(redis: Redis) -> None:
    """Neither the answer to the last outcome it told, noted before it left, nor a cancel: nobody would delete it."""
    nodes, judge = ["a1", "b1"], Judge()
    streams = _streams(redis, judge, lambda: nodes)
    for node in nodes:
        event: Any = pack([Finished(f"of-{node}", 1, 2.0, 1.0, DONE)])
        await redis.xadd(events_stream(node), {FIELD: event})
    reading = asyncio.create_task(streams.run())
    try:
        async with asyncio.timeout(20):
            await judge.until(2)
            nodes.remove("a1")
            await streams.forget("a1")
            await streams.cancel("of-a1", 1, "a1")
            await redis.xread({control_stream("b1"): "0"}, block=0)
        assert await redis.keys("*a1*") == []
    finally:
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading


@pytest.mark.parametrize("is_back", [False, True], ids=["gone", "back"])
async def test_what_a_leaving_worker_puts_back_is_deleted_later(redis: Redis, is_back: bool) -> None:
    """Celery returns prefetched messages when it ends, which is after its node has left; not those of a node back."""
    clock, queue, nodes = FakeClock(), node_queue("a1", Lane.TOOLS), ["b1"]
    streams = NodeStreams(
        redis, settling=Judge(), nodes=lambda: nodes, tell=lambda _: None, clock=clock, leads=lambda: True, is_at=at_any
    )
    await streams.forget("a1")
    await redis.lpush(queue, "put back")
    nodes += ["a1"] if is_back else []
    clock.advance(FORGET_AGAIN_S - 1)
    await streams._forget_again()
    assert await redis.exists(queue), "not before the worker has ended"
    clock.advance(2)
    await streams._forget_again()
    assert await redis.exists(queue) == is_back


async def test_progress_is_told_for_attempts_at_the_node_that_says_it(redis: Redis) -> None:
    """Another node, and an attempt that was given up, are not heard."""
    told: list[Happening] = []
    for node in ("a1", "b1"):
        said = [Progress("one", fence, 1.0, message=f"{node} {fence}") for fence in (1, 2)]
        await redis.xadd(events_stream(node), {FIELD: pack([*said, Finished(f"of-{node}", 1, 2.0, 1.0, DONE)])})
    attempts, judge = OpenAttempts(), Judge()
    attempts.add(
        Outstanding("one", 2, "a1", "inc", 1, "default", Lane.TOOLS, "t", None, State.RUNNING, 1.0, 1.0, None, False)
    )
    streams = NodeStreams(
        redis, settling=judge, nodes=lambda: ["b1", "a1"], tell=told.append, clock=SystemClock(),
        leads=lambda: True, is_at=attempts.is_at,
    )  # fmt: skip
    reading = asyncio.create_task(streams.run())
    try:
        async with asyncio.timeout(60):
            await judge.until(2)
    finally:
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading
    assert [one.message for one in told if isinstance(one, Progressed)] == ["a1 2"]
