# ruff: noqa: ARG002, ANN401 - fakes take what the real thing takes
"""An executor on a bench: a fake tool, a fake clock, a real journal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.envelope import Delivery, seal
from tasks.invocation import Lane
from tasks.ledger_events import Event, Finished, unpack
from tasks.node import Phase
from tasks.outcome import Outcome
from tasks.spend import Spent
from tasks.testing.clock import FakeClock
from worker.admit import Admission, Ref
from worker.attempt import Limits, Runner, Upstreams
from worker.blobs import Blobs
from worker.execute import Executor
from worker.journal import Journal
from worker.lease import Lease
from worker.unsettled import Unsettled
from worker.watch import Watch

KEY, POOL_KEY = b"k" * 32, b"p" * 32
OK = '{"content":[],"isError":false}'
WAIT_S = 60.0


@dataclass
class FakeServers:
    """One tool: it spends, then answers when told to, or raises."""

    answers: dict[str, Any] = field(default_factory=dict)
    spends: list[Spent] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    began: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    async def call(self, tool: str, arguments: dict[str, object], **rest: Any) -> str:
        """Answer, once the gate is open where the tool waits for it."""
        self.calls.append(rest["invocation"])
        self.began.release()
        for spent in self.spends:
            rest["on_spend"](spent)
        answer = self.answers.get(tool, OK)
        if tool == "t.wait":
            await self.gate.wait()
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    def quiet_s(self, tool: str) -> float | None:
        """As if it had just said something."""
        del tool
        return 0.0


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

    def ended(self, tool: str, outcome: Outcome, took_s: float | None, trace_id: str | None) -> None:
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

    def __init__(self, folder: Path, slots: int = 2, upstreams: Upstreams | None = None) -> None:
        """`upstreams`: real ones in place of `servers`."""
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
            runner=Runner(upstreams or self.servers, self.journal, blobs, watch, self.clock, Limits(1_000, 10_000)),
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
        self.executor.deliver(*seal(self.delivery(invocation, tool, **changes), key))

    @staticmethod
    def delivery(invocation: str, tool: str = "t.echo", **changes: Any) -> Delivery:
        """To this node, as it is now."""
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
        return Delivery(**(form | changes))

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
