"""What an attempt spent goes with its outcome, however it ends; and ahead of it, for the case that it never does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tasks.ledger_events import Event, Progress, unpack
from tasks.outcome import ErrorInfo, Failure
from tasks.spend import Spend
from worker.journal import Journal
from worker.testing.executor_bench import Bench
from worker.upstreams.errors import UpstreamError
from worker.watch import SPENT_GAP_S
from worker.work import Stop

FIRST = (Spend("glm-5", 1, 10, 5, cost_usd=0.1),)
ALL = (Spend("glm-5", 2, 30, 9, cost_usd=0.2),)
WAIT = UpstreamError(ErrorInfo("credential_spent", "wait", Failure.WAIT_UNTIL, 60.0))


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A node whose tool spends twice."""
    bench = Bench(tmp_path)
    bench.servers.spends = [FIRST, ALL]
    yield bench
    bench.servers.gate.set()
    await asyncio.gather(*(work.task for work in bench.executor._works.values() if work.task is not None))
    await bench.journal.close()


def ahead(bench: Bench) -> list[Progress]:
    """What was told of money before an end."""
    return [event for event in bench.reporter.events if isinstance(event, Progress) and event.spent]


async def told(bench: Bench, count: int) -> list[Progress]:
    """So many of them, at last."""
    async with asyncio.timeout(30):
        while len(ahead(bench)) < count:  # noqa: ASYNC110 - told by a timer of the node
            await asyncio.sleep(0.01)
    return ahead(bench)


@pytest.mark.parametrize(
    ("answer", "ending"),
    [
        pytest.param('{"content":[],"isError":false}', "succeeded", id="succeeded"),
        pytest.param('{"content":[],"isError":true}', "failed", id="failed with an answer"),
        pytest.param(WAIT, "failed", id="waits for a quota"),
        pytest.param(RuntimeError("a defect"), "failed", id="the node broke"),
        pytest.param('{"content":["' + "x" * 20_000 + '"]}', "failed", id="the answer is too large"),
        pytest.param('{"content":["' + "x" * 2_000 + '"]}', "succeeded", id="the answer is a blob"),
    ],
)
async def test_every_end_has_its_bill(bench: Bench, answer: object, ending: str) -> None:
    """Money was spent, whatever came of it: what was said last, all of it."""
    bench.servers.answers["t.echo"] = answer
    bench.deliver("one")
    async with asyncio.timeout(30):
        while not (kept := bench.unsettled._kept):  # noqa: ASYNC110 - a blob is not uploaded here
            await asyncio.sleep(0.01)
    (row,) = kept.values()
    (event,) = unpack(row.finished or b"")
    assert event.outcome.ending == ending  # type: ignore[union-attr]
    assert event.outcome.spent == ALL  # type: ignore[union-attr]


@pytest.mark.parametrize("why", [Stop.CANCEL, Stop.DRAIN])
async def test_a_stopped_run_has_its_bill(bench: Bench, why: Stop) -> None:
    """Cancelled, or cut short by a drain."""
    bench.deliver("one", "t.wait")
    await bench.began()
    bench.executor.stop_all(why)
    assert (await bench.ended("one")).outcome.spent == ALL


async def test_a_run_past_its_time_has_its_bill(bench: Bench) -> None:
    """Its timeout is over."""
    bench.deliver("one", "t.wait", timeout_s=0.01)
    assert (await bench.ended("one")).outcome.spent == ALL


async def test_an_ordinary_call_says_nothing_of_money(bench: Bench) -> None:
    """Nothing is stored and nothing is sent where nothing was spent."""
    bench.servers.spends = []
    bench.deliver("one")
    assert (await bench.ended("one")).outcome.spent == ()
    (row,) = bench.unsettled._kept.values()
    assert b"$" not in (row.finished or b"")


async def test_what_is_spent_goes_ahead_now_and_then(bench: Bench) -> None:
    """For the case that the node dies: the newest total, once until there is more and some time has passed."""
    bench.deliver("one", "t.wait")
    await bench.began()
    assert [event.spent for event in await told(bench, 1)] == [ALL]
    (work,) = bench.executor._works.values()
    more = (Spend("glm-5", 3, 40, 9, cost_usd=0.3),)
    work.spend(more)
    watch = bench.executor._runner.watch
    for _ in range(2):
        watch._tick()
        assert len(ahead(bench)) == 1, "not sooner than that"
    bench.clock.advance(SPENT_GAP_S)
    for _ in range(2):
        watch._tick()
        assert [event.spent for event in ahead(bench)] == [ALL, more]
    assert {(event.invocation, event.fence, event.message) for event in ahead(bench)} == {("one", 1, None)}


async def test_a_superseded_attempt_still_says_its_bill(bench: Bench) -> None:
    """Nobody wants its outcome any more; the money is gone."""
    bench.deliver("one", "t.wait")
    await bench.began()
    bench.executor.void(("one", 1), was_told=True)
    assert [event.spent for event in await told(bench, 1)] == [ALL]
    async with asyncio.timeout(30):
        while bench.executor._works:  # noqa: ASYNC110 - nothing is told of a superseded attempt's end
            await asyncio.sleep(0.01)
    assert len(bench.unsettled) == 0


async def test_a_bill_survives_the_nodes_death(bench: Bench, tmp_path: Path) -> None:
    """The journal holds it with the outcome: the next process reports both."""
    bench.deliver("one")
    await bench.ended("one")
    await bench.journal.close()
    left = Journal.open(tmp_path / "a1.db", boot_id="b").recovered.finished
    events: list[Event] = [event for row in left for event in unpack(row.finished or b"")]
    assert [event.outcome.spent for event in events] == [ALL]  # type: ignore[union-attr]
