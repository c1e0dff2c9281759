"""What a node holds and what becomes of it, with a fake tool, a fake clock and a real journal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tasks.envelope import Delivery, seal
from tasks.invocation import Lane
from tasks.ledger_events import Event, Finished, Started, unpack
from tasks.node import Phase
from tasks.outcome import ErrorInfo, Failure, Outcome
from tasks.testing.clock import FakeClock
from worker.admit import SEEN_MAX, Admission, Ref
from worker.attempt import Limits, Runner
from worker.blobs import Blobs
from worker.execute import Executor
from worker.journal import Journal, JournalFailed
from worker.lease import Lease
from worker.outcomes import of_result
from worker.unsettled import Unsettled
from worker.upstreams.errors import UpstreamError
from worker.watch import Watch
from worker.work import Stop

KEY, POOL_KEY = b"k" * 32, b"p" * 32
OK = '{"content":[],"isError":false}'
WAIT_S = 60.0


@dataclass
class FakeServers:
    """One tool: it answers when told to, or raises."""

    answers: dict[str, Any] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    began: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    async def call(self, tool: str, arguments: dict[str, object], **rest: Any) -> str:
        """Answer, once the gate is open where the tool waits for it."""
        self.calls.append(rest["invocation"])
        self.began.release()
        answer = self.answers.get(tool, OK)
        if tool == "t.wait":
            await self.gate.wait()
        if isinstance(answer, Exception):
            raise answer
        return str(answer)


@dataclass
class FakeReporter:
    """Keeps what it is told."""

    events: list[Event] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, event: Event) -> None:
        """Once."""
        self.events.append(event)

    def finished(self, ref: Ref, packed: bytes) -> None:
        """An outcome."""
        self.events += unpack(packed)
        self.news.set()

    def settled(self, ref: Ref) -> None:
        """Nothing is sent again here."""


@dataclass
class FakePool:
    """A pool's queue and the orchestrator's claims in one."""

    paused: list[Lane] = field(default_factory=list)
    resumed: list[Lane] = field(default_factory=list)
    returned: list[str] = field(default_factory=list)
    asked: dict[Ref, Callable[[bool], None]] = field(default_factory=dict)

    def pause(self, lane: Lane) -> None:
        """Noted."""
        self.paused.append(lane)

    def resume(self, lane: Lane) -> None:
        """Noted."""
        self.resumed.append(lane)

    def put_back(self, body: str, mac: str, lane: Lane) -> None:
        """Kept."""
        self.returned.append(body)

    def ask(self, ref: Ref, answer: Callable[[bool], None]) -> None:
        """Kept until the test answers."""
        self.asked[ref] = answer


@dataclass
class FakeMeter:
    """Counts by reason."""

    refusals: list[str] = field(default_factory=list)

    def ended(self, tool: str, outcome: Outcome, took_s: float | None) -> None:
        """Not asked about here."""

    def refused(self, why: str) -> None:
        """Noted."""
        self.refusals.append(why)


class NoStore:
    """No blob is ever needed."""

    async def get_blob(self, sha256: str) -> bytes | None:
        """It has none."""
        return None

    async def put_blob(self, sha256: str, data: bytes) -> None:
        """It takes none."""
        raise AssertionError


class Bench:
    """An executor on a bench."""

    def __init__(self, folder: Path, slots: int = 2) -> None:
        self.clock, self.servers, self.reporter = FakeClock(), FakeServers(), FakeReporter()
        self.pool, self.meter = FakePool(), FakeMeter()
        self.journal = Journal.open(folder / "a1.db", boot_id="b")
        self.journal.adopt("inc", "b")
        blobs = Blobs(folder / "results", NoStore())
        self.unsettled = Unsettled(self.journal, self.reporter, blobs)  # type: ignore[arg-type]
        watch = Watch(self.reporter, self.clock)
        self.executor = Executor(
            admission=Admission(node="a1", incarnation="inc", key=KEY, pool_key=POOL_KEY, term=1),
            slots={Lane.TOOLS: slots, Lane.AGENTS: 1},
            runner=Runner(self.servers, self.journal, blobs, watch, self.clock, Limits(1_000, 10_000)),
            journal=self.journal,
            unsettled=self.unsettled,
            claims=self.pool,
            meter=self.meter,
            clock=self.clock,
        )
        self.executor.gate = self.pool
        self.grant()

    def grant(self, term: int = 1) -> None:
        """A renewal that was sent just now."""
        self.executor.renewed(Lease(term, 7.0, self.clock.mono_s()))

    def deliver(self, invocation: str, tool: str = "t.echo", *, key: bytes = KEY, **changes: Any) -> None:
        """As it comes out of the queue."""
        form: dict[str, Any] = {
            "invocation": invocation,
            "fence": 1,
            "node": "a1",
            "incarnation": "inc",
            "term": 1,
            "tool": tool,
            "lane": Lane.TOOLS,
            "timeout_s": 5.0,
            "arguments_json": "{}",
        }
        self.executor.deliver(*seal(Delivery(**(form | changes)), key))

    async def ended(self, invocation: str) -> Finished:
        """The first report of its end."""
        async with asyncio.timeout(WAIT_S):
            while True:
                for event in self.reporter.events:
                    if isinstance(event, Finished) and event.invocation == invocation:
                        return event
                self.reporter.news.clear()
                await self.reporter.news.wait()

    async def began(self, count: int = 1) -> None:
        """That many more tool calls are under way."""
        async with asyncio.timeout(WAIT_S):
            for _ in range(count):
                await self.servers.began.acquire()

    def phases(self) -> dict[str, Phase]:
        """The inventory, by invocation."""
        return {held.invocation: held.phase for held in self.executor.held()}


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


def test_memory_of_fences_is_bounded() -> None:
    """A node that runs for months does not remember every call it ever ran."""
    admission = Admission(node="a1", incarnation="inc", key=KEY, pool_key=POOL_KEY, term=1)
    for number in range(SEEN_MAX + 10):
        admission.remember(f"i{number}", 1)
        admission.cancel((f"c{number}", 1))
    assert len(admission._seen) == len(admission._cancelled) == SEEN_MAX


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
