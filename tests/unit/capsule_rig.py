"""One run that is being saved: a runtime, files, a store and a clock that do as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from tasks.testing.clock import FakeClock
from worker.sidecars.bill import Bill
from worker.sidecars.capsule import Capsule, opened
from worker.sidecars.capsules import Capsules, Saver
from worker.sidecars.places import Change, Place
from worker.sidecars.sidecar import (
    AgentTask,
    Began,
    RunLimits,
    ToolBegan,
    ToolEnded,
    Usage,
)
from worker.upstreams.upstream import Ask

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
    spent_usd: float | None = None
    node: str = "a1"
    fence: int = 3
    limit_bytes: int = 1_000_000
    data: bytes = b""
    until: float | None = None
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
async def bench(*, left: Capsule | None = None, every_s: float = 0.0, limit_bytes: int = 10**6) -> AsyncIterator[Bench]:
    """In the fleet's hands until it is left."""
    runtime, files, clock, lines = Runtime(), Files(), FakeClock(), list[str]()
    files.gate.set()
    store = Store(limit_bytes=limit_bytes)
    ask = Ask("inv-1", None, None, lambda _done, _total, line: lines.append(line or ""), "shop", keeping=store)
    saves = Capsules(runtime, "agent.run", clock, every_s)
    async with saves.saving(TASK, cast("Place", files), ARGUMENTS, ask, left) as saver:
        assert saver is not None
        saver.heard(Began("session-1", "m"))
        yield Bench(runtime, files, store, clock, saver, lines)
