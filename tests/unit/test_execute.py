"""What a node holds and what becomes of it, with a fake tool, a fake clock and a real journal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tasks.invocation import Lane
from tasks.ledger_events import Started
from tasks.node import Phase
from tasks.outcome import ErrorInfo, Failure, Outcome
from worker.journal import JournalFailed
from worker.outcomes import of_result
from worker.testing.executor_bench import OK, POOL_KEY, Bench
from worker.upstreams.errors import UpstreamError
from worker.work import Stop


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A node with two slots and a good lease."""
    bench = Bench(tmp_path)
    yield bench
    running = [work.task for work in bench.executor._works.values() if work.task is not None]
    bench.executor.stop_all(Stop.DRAIN)
    bench.servers.gate.set()
    await asyncio.gather(*running)
    await bench.journal.close()


async def test_slots_bound_what_runs_and_order_is_kept(bench: Bench) -> None:
    """As many calls run as there are slots, the rest wait in the order they came, and each lane has its own."""
    for number in range(4):
        bench.deliver(f"w{number}", "t.wait")
    bench.deliver("agent", "t.wait", lane=Lane.AGENTS)
    await bench.began(3)
    assert bench.servers.calls == ["w0", "w1", "agent"]
    assert [name for name, phase in bench.phases().items() if phase is Phase.WAITING] == ["w2", "w3"]
    bench.servers.gate.set()
    await bench.ended("w3")
    assert bench.servers.calls[3:] == ["w2", "w3"]


async def test_start_is_on_disk_before_the_tool_is_called(bench: Bench) -> None:
    """The journal's commit comes first: a crash between the two is told as 'may have started', never the reverse."""
    seen: list[int] = []
    original = bench.servers.call

    async def call(*args: Any, **rest: Any) -> str:
        seen.append(bench.journal._db.execute("SELECT count(*) FROM entry WHERE invocation = 'one'").fetchone()[0])
        return await original(*args, **rest)

    bench.servers.call = call  # type: ignore[method-assign]
    bench.deliver("one")
    await bench.ended("one")
    assert seen == [1]


async def test_lease_is_checked_again_when_a_slot_is_free(bench: Bench) -> None:
    """What waited while the lease ran out does not start, and starts after the next grant."""
    for name in ("w0", "w1", "late"):
        bench.deliver(name, "t.wait")
    await bench.began(2)
    bench.clock.advance(7.0)
    bench.servers.gate.set()
    await bench.ended("w1")
    assert bench.phases()["late"] is Phase.WAITING
    bench.grant()
    assert (await bench.ended("late")).outcome.ending == "succeeded"


async def test_lease_that_ends_during_the_commit_starts_nothing(bench: Bench) -> None:
    """The last look at the lease is after the journal's commit, and costs no try."""
    bench.deliver("one")
    bench.clock.advance(7.0)
    ended = await bench.ended("one")
    assert ended.started_at is None
    assert ended.outcome.error is not None
    assert (ended.outcome.error.code, ended.outcome.error.failure) == ("lease_over", Failure.WAIT_UNTIL)
    assert bench.servers.calls == []


async def test_a_fence_runs_once(bench: Bench) -> None:
    """The same delivery again, also after it was settled, and an older fence, are refused; a newer one runs."""
    bench.deliver("one", fence=2)
    await bench.ended("one")
    bench.deliver("one", fence=2)
    bench.executor.settled([("one", 2)])
    bench.deliver("one", fence=2)
    bench.deliver("one", fence=1)
    assert bench.meter.refusals == ["fence"] * 3
    bench.deliver("one", fence=3)
    await bench.began(2)
    assert bench.servers.calls == ["one", "one"]


async def test_delivery_of_a_coming_term_waits_for_it(bench: Bench) -> None:
    """A delivery may overtake the renewal's reply that says its term: it waits, and starts when it is said."""
    bench.deliver("early", term=2)
    assert bench.phases() == {"early": Phase.WAITING}
    bench.grant(term=2)
    assert (await bench.ended("early")).outcome.ending == "succeeded"


async def test_void_of_what_came_meanwhile_does_not_stop_it(bench: Bench) -> None:
    """Missed in an inventory, then started before the reply: it runs on, because its effect may be there."""
    bench.deliver("one", "t.wait")
    await bench.began()
    bench.executor.void(("one", 1), was_told=False)
    bench.servers.gate.set()
    assert (await bench.ended("one")).outcome.ending == "succeeded"
    bench.executor.void(("lost", 1), was_told=False)
    bench.deliver("lost")
    assert bench.meter.refusals == ["void"]


async def test_void_of_what_came_and_ended_keeps_its_outcome(bench: Bench) -> None:
    """Missed in an inventory, then run before the reply was read: its outcome is held until settled."""
    bench.deliver("one")
    await bench.ended("one")
    bench.executor.void(("one", 1), was_told=False)
    assert bench.phases() == {"one": Phase.FINISHED}


async def test_superseded_call_leaves_nothing(bench: Bench) -> None:
    """It is stopped, unreported, and gone from the journal."""
    bench.deliver("one", "t.wait")
    await bench.began()
    bench.executor.void(("one", 1), was_told=True)
    bench.deliver("two")
    await bench.ended("two")
    bench.executor.settled([("two", 1)])
    assert bench.phases() == {}
    assert not [event for event in bench.reporter.events if event.invocation == "one"]
    bench.journal._flush()
    assert bench.journal._db.execute("SELECT count(*) FROM entry").fetchone() == (0,)


async def test_cancel_that_overtakes_its_delivery_holds(bench: Bench) -> None:
    """The control stream may be faster than the queue."""
    bench.executor.cancel(("one", 1))
    bench.deliver("one")
    assert (await bench.ended("one")).outcome.ending == "cancelled"
    assert bench.servers.calls == []


async def test_timeout_says_that_it_may_have_started(bench: Bench) -> None:
    """A tool that never answers is stopped; whether to repeat it is not the node's decision."""
    bench.deliver("one", "t.wait", timeout_s=0.01)
    ended = await bench.ended("one")
    assert ended.outcome.error is not None
    assert (ended.outcome.error.code, ended.outcome.error.failure) == ("tool_timeout", Failure.MAYBE_STARTED)


async def test_deadline_ends_what_waits_and_what_runs(bench: Bench) -> None:
    """Past it nothing starts, and what runs is stopped."""
    now = bench.clock.wall_s()
    bench.deliver("late", expires_at=now)
    bench.deliver("cut", "t.wait", expires_at=now + 0.01)
    late, cut = await bench.ended("late"), await bench.ended("cut")
    assert (late.outcome.ending, late.started_at) == ("expired", None)
    assert (cut.outcome.ending, cut.started_at) == ("expired", now)


async def test_errors_are_told_apart(bench: Bench) -> None:
    """A server's refusal, a tool's own error and a defect of the node reach the ledger as what they are."""
    refused = ErrorInfo("server_unavailable", "it is down", Failure.NOT_STARTED, 3.0)
    bench.servers.answers = {
        "t.down": UpstreamError(refused),
        "t.wrong": '{"content":[{"type":"text","text":"no such file"}],"isError":true}',
        "t.bug": ZeroDivisionError(),
        "t.long": "x" * 10_001,
    }
    for tool in bench.servers.answers:
        bench.deliver(tool, tool)
    errors = {tool: (await bench.ended(tool)).outcome for tool in bench.servers.answers}
    assert errors["t.down"] == Outcome("failed", error=refused)
    assert errors["t.wrong"].result_json == bench.servers.answers["t.wrong"]
    assert [(tool, o.error.code, o.error.failure) for tool, o in errors.items() if o.error] == [
        ("t.down", "server_unavailable", Failure.NOT_STARTED),
        ("t.wrong", "tool_error", Failure.TOOL_ERROR),
        ("t.bug", "node_error", Failure.MAYBE_STARTED),
        ("t.long", "result_too_large", Failure.PERMANENT),
    ]


async def test_journal_in_trouble_starts_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk fails the start before the tool is called, at no cost in tries; so does everything after it."""
    pages = bench.journal._db.execute("PRAGMA page_count").fetchone()[0]
    bench.journal._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(JournalFailed):
        await bench.journal.finished(None, "big", 1, b"x" * 100_000)[1]
    bench.deliver("one")
    ended = await bench.ended("one")
    assert ended.outcome.error is not None
    assert (ended.outcome.error.code, ended.outcome.error.failure) == ("journal_failed", Failure.WAIT_UNTIL)
    assert bench.servers.calls == []


async def test_draining_starts_nothing_and_hands_back(bench: Bench) -> None:
    """What was not started is returned, and is not started by a grant that comes later."""
    for name in ("w0", "w1", "back"):
        bench.deliver(name, "t.wait")
    await bench.began(2)
    bench.executor.is_draining = True
    assert bench.executor.hand_back() == [("back", 1)]
    bench.grant()
    bench.servers.gate.set()
    await bench.ended("w1")
    assert "back" not in bench.servers.calls


@pytest.mark.parametrize("is_answered", [True, False])
async def test_a_drain_that_meets_a_call_before_its_start_hands_it_back(bench: Bench, is_answered: bool) -> None:
    """It has a slot and still fetches its arguments: nobody cancelled it, it is not told as ended, and costs no try."""
    fetching, gate = asyncio.Event(), asyncio.Event()

    async def fetch(_sha256: str) -> bytes:
        fetching.set()
        await gate.wait()
        if not is_answered:
            raise UpstreamError(ErrorInfo("blob_unavailable", "no", Failure.NOT_STARTED))
        return b"{}"

    bench.executor._runner.blobs.fetch = fetch  # type: ignore[method-assign]
    bench.deliver("one", arguments_json=None, arguments_blob="0" * 64)
    await fetching.wait()
    bench.executor.is_draining = True
    bench.executor.stop_all(Stop.DRAIN)
    task = asyncio.all_tasks() - {asyncio.current_task()}
    assert bench.executor.is_idle, "the store may take its time, the drain has none"
    assert bench.executor.hand_back() == [("one", 1)]
    gate.set()
    await asyncio.gather(*task)
    assert not bench.reporter.events
    assert bench.servers.calls == []


async def test_a_drain_between_the_journal_and_the_tool_hands_back_too(bench: Bench) -> None:
    """Its start is on disk, the tool was not called: the journal forgets it."""
    original = bench.journal.started

    def started(*args: Any) -> Any:
        asyncio.get_running_loop().call_soon(bench.executor.stop_all, Stop.DRAIN)
        return original(*args)

    bench.journal.started = started  # type: ignore[method-assign, assignment]
    bench.deliver("one")
    (work,) = bench.executor._works.values()
    assert work.task is not None
    await work.task
    assert work.stop is Stop.DRAIN
    assert bench.executor.hand_back() == [("one", 1)]
    assert (bench.reporter.events, bench.servers.calls) == ([], [])
    bench.executor.handed_back([("one", 1)])
    assert bench.executor.hand_back() == []


async def test_a_claim_without_its_answer_is_in_no_inventory(bench: Bench) -> None:
    """It is nobody's yet: listed, it would be voided as a stranger's, and stopped once granted."""
    bench.deliver("one", key=POOL_KEY, node=None, incarnation=None, term=0, tool="t.wait")
    assert bench.phases() == {}
    bench.pool.asked["one", 1](True)
    assert bench.phases() == {"one": Phase.RUNNING}


async def test_a_cancel_during_a_claim_is_kept(bench: Bench) -> None:
    """It comes before the claim's answer, and the tool is never called."""
    bench.deliver("one", key=POOL_KEY, node=None, incarnation=None, term=0)
    bench.executor.cancel(("one", 1))
    bench.pool.asked["one", 1](True)
    assert (await bench.ended("one")).outcome.ending == "cancelled"
    assert bench.servers.calls == []


async def test_late_bound_takes_no_more_than_it_has_slots(bench: Bench) -> None:
    """Each claim holds a slot; with none left the queue is paused, the surplus put back, and resumed after."""
    late: dict[str, Any] = {"key": POOL_KEY, "node": None, "incarnation": None, "term": 0, "tool": "t.wait"}
    for name in ("one", "two", "surplus"):
        bench.deliver(name, **late)
    assert list(bench.pool.asked) == [("one", 1), ("two", 1)]
    assert bench.pool.paused
    assert len(bench.pool.returned) == 1
    bench.pool.resumed.clear()
    bench.pool.asked["one", 1](True)
    assert not bench.pool.resumed
    bench.pool.asked["two", 1](False)
    assert bench.pool.resumed == [Lane.TOOLS]
    await bench.began()
    assert bench.servers.calls == ["one"]
    assert bench.meter.refusals == ["claim"]
    bench.deliver("surplus", **late)
    bench.pool.asked["surplus", 1](True)
    await bench.began()
    assert bench.servers.calls == ["one", "surplus"], "what was put back may come again"


async def test_a_cordoned_node_leaves_late_bound_calls_to_others(bench: Bench) -> None:
    """It shall become idle: its pool's queue is paused, what comes all the same is put back; opened, it takes again."""
    late: dict[str, Any] = {"key": POOL_KEY, "node": None, "incarnation": None, "term": 0}
    bench.executor.open(is_open=False)
    assert set(bench.pool.paused) == set(Lane)
    bench.deliver("one", **late)
    assert (len(bench.pool.returned), dict(bench.pool.asked)) == (1, {})
    bench.pool.resumed.clear()
    bench.executor.open(is_open=True)
    assert Lane.TOOLS in bench.pool.resumed
    bench.deliver("one", **late)
    assert list(bench.pool.asked) == [("one", 1)]


async def test_each_key_speaks_for_its_kind_only(bench: Bench) -> None:
    """The pool's key, which other nodes hold, does not address this node; nor does ours bind late."""
    bench.deliver("one", key=POOL_KEY)
    bench.deliver("two", node=None)
    assert bench.meter.refusals == ["mac", "mac"]


async def test_junk_is_refused_and_ends_nothing(bench: Bench) -> None:
    """Whatever stands in the queue, the node lives on."""
    bench.executor.deliver("not json", "00")
    bench.executor.deliver(None, 7)  # type: ignore[arg-type]
    bench.deliver("one")
    await bench.ended("one")
    assert bench.meter.refusals == ["mac", "form"]


async def test_short_calls_are_not_announced(bench: Bench) -> None:
    """One event per call on the hot path: the outcome says when it started."""
    bench.deliver("one")
    ended = await bench.ended("one")
    assert ended.started_at == bench.clock.wall_s()
    assert not [event for event in bench.reporter.events if isinstance(event, Started)]


async def test_the_slot_of_a_cancelled_call_is_taken_until_its_tool_has_stopped(bench: Bench) -> None:
    """The next call cannot meet it, and the orchestrator sees the slot taken."""

    async def stubborn(_tool: str, _arguments: dict[str, object], **rest: Any) -> str:
        bench.servers.calls.append(rest["invocation"])
        try:
            await asyncio.Event().wait()
        finally:
            bench.servers.began.release()
            await bench.servers.gate.wait()
        return OK

    original, bench.servers.call = bench.servers.call, stubborn  # type: ignore[method-assign]
    bench.deliver("one", "t.wait")
    bench.deliver("two", "t.wait")
    bench.deliver("next", "t.wait")
    while len(bench.servers.calls) < 2:  # noqa: ASYNC110 - a few turns of the loop
        await asyncio.sleep(0)
    bench.executor.cancel(("one", 1))
    await bench.began()
    assert bench.phases() == {"one": Phase.RUNNING, "two": Phase.RUNNING, "next": Phase.WAITING}
    bench.servers.call = original  # type: ignore[method-assign]
    bench.servers.gate.set()
    assert (await bench.ended("one")).outcome.ending == "cancelled"
    await bench.ended("next")
    bench.executor.cancel(("two", 1))
    await bench.ended("two")


@pytest.mark.parametrize(
    ("text", "ending"),
    [
        (OK, "succeeded"),
        ('{"content":[],"isError":true}', "failed"),
        ('{"content":[], "isError" : true}', "failed"),
        ('{"content":[{"type":"text","text":"\\"isError\\":true"}]}', "succeeded"),
        ('{"content":[],"structuredContent":{"isError":true}}', "succeeded"),
        ('{"resultType":"input_required"}', "succeeded"),
    ],
)
def test_only_the_results_own_flag_is_an_error(text: str, ending: str) -> None:
    """`isError` counts at the top of the result, not in text and not in structured content."""
    assert of_result(text, "t.x").ending == ending
