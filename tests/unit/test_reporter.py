"""What a node says of its outcomes, again and again, without filling Redis while nobody reads."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from tasks.ledger_events import FIELD, Finished, pack, unpack
from tasks.outcome import Outcome
from tasks.testing.clock import FakeClock
from worker.reporter import KEEP_S, RESEND_CAP_S, RESEND_S, Reporter

STREAM = "mcpfleet.n.a1.events"
NIGHT_S = 8 * 3600


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client."""
    client = Redis.from_url(redis_url)
    yield client
    await client.delete(STREAM)
    await client.aclose()


def _outcome(invocation: str) -> bytes:
    return pack([Finished(invocation, 1, 10.0, 9.0, Outcome("succeeded", result_json="{}"))])


async def _said(redis: Redis) -> list[str]:
    entries = await redis.xrange(STREAM)
    return [event.invocation for _id, fields in entries for event in unpack(fields[FIELD])]


async def _pass(reporter: Reporter, clock: FakeClock, seconds: float) -> None:
    for _ in range(int(seconds)):
        clock.advance(1.0)
        reporter.resend()
        await reporter.flush()


async def test_a_night_without_an_orchestrator_does_not_fill_redis(redis: Redis) -> None:
    """An outcome is said again after 5 s, then after ever longer times, and once a minute in the end."""
    clock = FakeClock()
    reporter = Reporter(redis, STREAM, clock)
    reporter.finished(("i", 1), _outcome("i"))
    await reporter.flush()
    await _pass(reporter, clock, RESEND_S)
    assert len(await _said(redis)) == 2
    await _pass(reporter, clock, NIGHT_S)
    assert len(await _said(redis)) < NIGHT_S / RESEND_CAP_S + 10


async def test_what_was_said_again_since_may_go(redis: Redis) -> None:
    """Entries older than ten minutes by Redis' own clock are trimmed, whatever the clock of this machine says."""
    reporter = Reporter(redis, STREAM, FakeClock())
    seconds, _ = await redis.time()
    for age_s in range(400, 0, -1):  # full nodes of the stream: trimming is approximate
        at_ms = int((seconds - KEEP_S - age_s) * 1000)
        await redis.execute_command("XADD", STREAM, f"{at_ms}-1", FIELD, _outcome("old"))
    for name in ("first", "second"):
        reporter.finished((name, 1), _outcome(name))
        await reporter.flush()
    said = await _said(redis)
    assert said[-2:] == ["first", "second"]
    assert said.count("old") < 101


async def test_a_settled_outcome_is_not_said_again(redis: Redis) -> None:
    """Neither by the clock nor when Redis is back."""
    clock = FakeClock()
    reporter = Reporter(redis, STREAM, clock)
    reporter.finished(("i", 1), _outcome("i"))
    await reporter.flush()
    reporter.settled(("i", 1))
    reporter.resend(is_all=True)
    await _pass(reporter, clock, RESEND_CAP_S)
    assert await _said(redis) == ["i"]


async def test_redis_that_was_away_hears_everything_at_once(redis: Redis) -> None:
    """It may have lost it all: no waiting for the next turn of each."""
    clock = FakeClock()
    reporter = Reporter(redis, STREAM, clock)
    for name in ("one", "two"):
        reporter.finished((name, 1), _outcome(name))
    await reporter.flush()
    await redis.delete(STREAM)
    reporter.resend(is_all=True)
    await reporter.flush()
    assert await _said(redis) == ["one", "two"]


class _Away:
    """Redis, until it is there."""

    async def execute_command(self, *args: bytes | str) -> object:
        """Nobody answers."""
        raise OSError(args[0])


async def test_what_was_superseded_before_it_was_ever_said_is_said_once(redis: Redis) -> None:
    """Nobody wants the outcome of a node that was cut off; what it spent since is on no other bill."""
    reporter = Reporter(_Away(), STREAM, FakeClock())
    reporter.finished(("i", 1), _outcome("i"))
    with pytest.raises(OSError, match="XADD"):
        await reporter.flush()
    reporter.settled(("i", 1))
    reporter._redis = redis
    for _ in range(2):
        reporter.resend(is_all=True)
        await reporter.flush()
    assert await _said(redis) == ["i"]
