"""When a running session is saved: at a quiet point, one at a time, at a pace; and with what a run goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from tasks.errors import OrchestratorDown
from tasks.outcome import ErrorInfo, Failure
from tasks.testing.clock import FakeClock
from worker.sidecars import capsules as module
from worker.sidecars.bill import Bill
from worker.sidecars.capsule import Capsule, CapsuleBroken, Used, opened, sealed
from worker.sidecars.capsules import Capsules, Saver, going_on, in_all, used_up
from worker.sidecars.places import Change, Place
from worker.sidecars.sidecar import (
    AgentTask,
    Began,
    Ending,
    Fault,
    Result,
    RunLimits,
    SessionMode,
    ToolBegan,
    ToolEnded,
    Usage,
)
from worker.upstreams.errors import UpstreamError
from worker.upstreams.upstream import Ask
from worker.workspaces.errors import PatchTooLarge

WAIT_S = 20.0
ARGUMENTS = {"prompt": "do it"}
BILL = Bill()
BILL.add("m", Usage(input=10), 0.25)
LIMITS = RunLimits(9.0, 9.0, turns=5, cost_usd=1.0)
TASK = AgentTask("run-1", "do it", Path("/w"), Path("/h"), LIMITS, project="shop", bill=BILL)


@dataclass
class Runtime:
    """A runtime whose transcript is what the test says."""

    text: str = ""
    version: str = "agent 1"
    reads: int = 0

    def runtime(self) -> str:
        """Its version."""
        return self.version

    def model_of(self, asked: str | None) -> str | None:
        """One."""
        return asked or "m"

    def session_now(self, session: str, task: AgentTask) -> str | None:
        """Of any session."""
        del session, task
        self.reads += 1
        return self.text

    def has_answers(self, transcript: str, tools: Iterable[str]) -> bool:
        """Lines `answer ID`."""
        return all(f"answer {tool}\n" in transcript for tool in tools)

    def begins_a_tool(self, transcript: str) -> bool:
        """Lines `use ID`."""
        return "use " in transcript


@dataclass
class Files:
    """A place whose patch takes as long as the test wants."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    fault: Exception | None = None
    busy: int = 0
    most: int = 0

    async def change(self, limit_bytes: int) -> Change:
        """Once the gate is open."""
        del limit_bytes
        self.busy += 1
        self.most = max(self.most, self.busy)
        self.asked.release()
        await self.gate.wait()
        self.busy -= 1
        if self.fault is not None:
            raise self.fault
        return Change("a" * 40, "agent/run-1", b"patch")


@dataclass
class Store:
    """Keeps what is saved."""

    left: str | None = None
    node: str = "a1"
    fence: int = 3
    limit_bytes: int = 1_000_000
    data: bytes = b""
    numbers: list[int] = field(default_factory=list)
    saved: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    faults: list[Exception] = field(default_factory=list)

    async def fetch(self) -> bytes:
        """What was left."""
        return self.data

    async def save(self, number: int, data: bytes) -> None:
        """Or not."""
        if self.faults:
            raise self.faults.pop()
        self.data = data
        self.numbers.append(number)
        self.saved.release()


@dataclass
class Bench:
    """One run being saved."""

    runtime: Runtime
    files: Files
    store: Store
    clock: FakeClock
    saver: Saver
    lines: list[str]

    def turn(self, tool: str) -> None:
        """The agent uses a tool and has its answer."""
        self.saver.heard(ToolBegan(tool, "Bash", ""))
        self.runtime.text += f"use {tool}\nanswer {tool}\n"
        self.saver.heard(ToolEnded(tool, is_error=False))

    async def is_saved(self) -> Capsule:
        """The next one."""
        async with asyncio.timeout(WAIT_S):
            await self.store.saved.acquire()
        return opened(self.store.data, "inv-1")

    async def is_read(self) -> None:
        """The files are being read."""
        async with asyncio.timeout(WAIT_S):
            await self.files.asked.acquire()


@asynccontextmanager
async def _bench(
    *, left: Capsule | None = None, every_s: float = 0.0, limit_bytes: int = 10**6
) -> AsyncIterator[Bench]:
    runtime, files, clock, lines = Runtime(), Files(), FakeClock(), list[str]()
    files.gate.set()
    store = Store(limit_bytes=limit_bytes)
    ask = Ask("inv-1", None, None, lambda _done, _total, line: lines.append(line or ""), "shop", keeping=store)
    saves = Capsules(runtime, "agent.run", clock, every_s)
    async with saves.saving(TASK, cast("Place", files), ARGUMENTS, ask, left) as saver:
        assert saver is not None
        saver.heard(Began("session-1", "m"))
        yield Bench(runtime, files, store, clock, saver, lines)


async def test_a_turn_that_ended_is_saved() -> None:
    """With its transcript, files, turns and money, and where it was."""
    async with _bench() as at:
        at.turn("t1")
        capsule = await at.is_saved()
    assert (capsule.session, capsule.transcript, capsule.patch) == ("session-1", "use t1\nanswer t1\n", b"patch")
    assert (capsule.fence, capsule.number, capsule.was_on) == (3, 1, ("a1",))
    assert capsule.used == Used(turns=1, usage=Usage(input=10), cost_usd=0.25)


async def test_nothing_is_saved_while_a_tool_is_at_work() -> None:
    """Two at once: the first that ends is no quiet point."""
    async with _bench() as at:
        at.saver.heard(ToolBegan("t1", "Bash", ""))
        at.saver.heard(ToolBegan("t2", "Bash", ""))
        at.runtime.text = "use t1\nuse t2\nanswer t1\nanswer t2\n"
        at.saver.heard(ToolEnded("t1", is_error=False))
        for _ in range(9):
            await asyncio.sleep(0)
        assert (at.files.most, at.runtime.reads) == (0, 0)
        at.saver.heard(ToolEnded("t2", is_error=False))
        assert (await at.is_saved()).used.turns == 1


@pytest.mark.parametrize("is_heard", [True, False])
async def test_what_changed_while_it_was_read_is_thrown_away(is_heard: bool) -> None:
    """A tool began, and only its event has come, or only its line is written; the next turn's capsule is right."""
    async with _bench() as at:
        at.files.gate.clear()
        at.turn("t1")
        await at.is_read()
        if is_heard:
            at.saver.heard(ToolBegan("t2", "Bash", ""))
        else:
            at.runtime.text += "use t2\n"
        reads = at.runtime.reads
        at.files.gate.set()
        async with asyncio.timeout(WAIT_S):
            while at.runtime.reads == reads:  # noqa: ASYNC110 - a counter in another thread
                await asyncio.sleep(0)
        for _ in range(3):
            await asyncio.to_thread(bool)  # what was read so is looked at before anything more is heard
        if is_heard:
            at.runtime.text += "use t2\n"
        else:
            at.saver.heard(ToolBegan("t2", "Bash", ""))
        at.runtime.text += "answer t2\n"
        at.saver.heard(ToolEnded("t2", is_error=False))
        capsule = await at.is_saved()
    assert (at.store.numbers, capsule.used.turns) == ([1], 2)
    assert "answer t2" in capsule.transcript


async def test_an_answer_that_comes_meanwhile_is_left_for_the_next() -> None:
    """Words of the model change no file: what was read before them still holds."""
    async with _bench() as at:
        at.files.gate.clear()
        at.turn("t1")
        await at.is_read()
        at.runtime.text += "words\n"
        at.files.gate.set()
        assert (await at.is_saved()).transcript == "use t1\nanswer t1\n"


async def test_a_transcript_that_lags_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files with an effect that the conversation does not know of would be done twice."""
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.0)
    async with _bench() as at:
        at.saver.heard(ToolBegan("t1", "Bash", ""))
        at.runtime.text = "use t1\n"
        at.saver.heard(ToolEnded("t1", is_error=False))
        async with asyncio.timeout(WAIT_S):
            while at.runtime.reads < 3:  # noqa: ASYNC110 - a counter in another thread
                await asyncio.sleep(0)
        assert at.files.most == 0
        at.runtime.text += "answer t1\nhalf a li"
        assert (await at.is_saved()).transcript == "use t1\nanswer t1\n"


async def test_one_at_a_time_and_not_too_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes in between is saved together, once it is due."""
    slept = list[float]()
    due = asyncio.Event()
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await (due.wait() if seconds > 1 else real(seconds))

    monkeypatch.setattr(module.asyncio, "sleep", sleep)
    async with _bench(every_s=30.0) as at:
        at.turn("t1")
        await at.is_saved()
        for tool in ("t2", "t3", "t4"):
            at.turn(tool)
        async with asyncio.timeout(WAIT_S):
            while 30.0 not in slept:
                await real(0)
        assert at.store.numbers == [1]
        due.set()
        assert (await at.is_saved()).used.turns == 4
    assert (at.store.numbers, at.files.most) == ([1, 2], 1)


async def test_a_session_over_the_limit_is_said_once() -> None:
    """Whether the whole is too large or only its files; the run goes on, and a later capsule may fit."""
    async with _bench(limit_bytes=10) as at:
        at.turn("t1")
        async with asyncio.timeout(WAIT_S):
            while not at.lines:  # noqa: ASYNC110 - lines come by callback
                await asyncio.sleep(0)
        at.files.fault = PatchTooLarge(10)
        at.turn("t2")
        for _ in range(2):
            await at.is_read()
        for _ in range(9):
            await asyncio.sleep(0)
        at.files.fault, at.store.limit_bytes = None, 10**6
        at.turn("t3")
        assert (await at.is_saved()).used.turns == 3
    (line,) = at.lines
    assert "cannot go on elsewhere" in line


async def test_a_store_that_is_away_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the agent is as quiet as it was; the run does not notice."""
    monkeypatch.setattr(module, "AGAIN_S", 0.0)
    async with _bench() as at:
        at.store.faults.append(OrchestratorDown("http://x", "away"))
        at.turn("t1")
        assert (await at.is_saved()).used.turns == 1
    assert at.store.faults == []


async def test_a_run_that_went_on_counts_on() -> None:
    """Number, turns, money, and the nodes that it was on."""
    async with _bench() as first:
        first.turn("t1")
        left = await first.is_saved()
    async with _bench(left=left) as second:
        second.turn("t2")
        capsule = await second.is_saved()
    assert (capsule.number, capsule.was_on) == (2, ("a1", "a1"))
    assert capsule.used == Used(turns=2, usage=Usage(input=20), cost_usd=0.5)
    task = going_on(TASK, left)
    assert (task.session.mode, task.session.id, task.brought) == (SessionMode.RESUME, "session-1", left.transcript)
    assert (task.limits.turns, task.limits.cost_usd, task.spent_usd) == (4, 1.0, 0.25)
    assert used_up(TASK, left) is None
    over = used_up(TASK, replace(left, used=Used(turns=5)))
    assert over is not None
    assert (over.ending, over.fault) == (Ending.LIMIT, Fault.TURNS)
    result = in_all(Result(Ending.SUCCEEDED, "done", turns=2, usage=Usage(input=1), cost_usd=None), left)
    assert (result.turns, result.usage.input, result.cost_usd) == (3, 11, None)


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"project": "other"}, "project"),
        ({"tool": "other.run"}, "tool"),
        ({"arguments": {"prompt": "another"}}, "arguments"),
    ],
)
async def test_a_capsule_of_something_else_is_refused(changes: dict[str, Any], wrong: str) -> None:
    """Whatever the orchestrator was told: another project's files never come into this one's run."""
    async with _bench() as at:
        at.turn("t1")
        await at.is_saved()
        keeping = replace(at.store, left="digest")
    ask = Ask("inv-1", None, None, lambda *_: None, changes.get("project", "shop"), keeping=keeping)
    here = Capsules(Runtime(), changes.get("tool", "agent.run"), FakeClock(), 0.0)
    with pytest.raises(CapsuleBroken, match=wrong):
        await here.left(changes.get("arguments", ARGUMENTS), None, ask)


async def test_another_version_of_the_runtime_leaves_it_to_another_node() -> None:
    """Nothing was started, so it is tried again; another model is only said."""
    async with _bench() as at:
        at.turn("t1")
        left = await at.is_saved()
        keeping = replace(at.store, left="digest")
    lines = list[str]()
    ask = Ask("inv-1", None, None, lambda _done, _total, line: lines.append(line or ""), "shop", keeping=keeping)
    with pytest.raises(UpstreamError) as refused:
        await Capsules(Runtime(version="agent 2"), "agent.run", FakeClock(), 0.0).left(ARGUMENTS, None, ask)
    assert refused.value.info == ErrorInfo(
        "capsule_unfit", "this run began with agent 1; this node has agent 2", Failure.NOT_STARTED
    )
    assert await Capsules(Runtime(), "agent.run", FakeClock(), 0.0).left(ARGUMENTS, "m2", ask) == left
    assert lines == ["goes on with the model m2; it began with m"]
    assert sealed(left) == keeping.data
