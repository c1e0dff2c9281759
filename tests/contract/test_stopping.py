"""A cancelled call is over when its tool is: by itself, or with the process it runs in."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tasks.outcome import Failure
from worker.testing.upstreams_kit import WAIT_S, Kit, is_alive, running, until
from worker.upstreams.life import Limits

EFFECTS = Path(__file__).parents[1] / "chaos" / "effects_server.py"
LONG_S = 600
SOON = Limits(stop_s=0.3, neighbours_s=WAIT_S)


@dataclass
class Effects:
    """A server whose tools ignore every cancellation, each call in a thread of its own, and its marks."""

    kit: Kit
    path: Path

    def begin(self, key: str, seconds: float, tool: str = "apply") -> asyncio.Task[dict[str, Any]]:
        """A call, under way."""
        return asyncio.create_task(self.kit.call(f"e.{tool}", {"key": key, "seconds": seconds}))

    def marks(self, what: str, key: str) -> list[dict[str, Any]]:
        """What the tool did."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return [mark for mark in map(json.loads, lines) if (mark["what"], mark["key"]) == (what, key)]

    async def began(self, key: str) -> int:
        """The pid it runs in, once it does."""
        await until(lambda: self.marks("effect", key))
        return int(self.marks("effect", key)[0]["pid"])


@asynccontextmanager
async def effects(folder: Path, limits: Limits = SOON, **policies: Any) -> AsyncIterator[Effects]:
    """One server, and what the file declares of its tools."""
    marks = folder / "marks"
    entry = {"command": sys.executable, "args": ["-S", str(EFFECTS), str(marks)]}
    form = {"mcpServers": {"e": entry}, "mcpfleet": {"tools": {f"e.{tool}": it for tool, it in policies.items()}}}
    async with running(form, limits=limits) as kit:
        yield Effects(kit, marks)


async def ends_cancelled(call: Awaitable[object]) -> None:
    """Nothing else."""
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(WAIT_S):
            await call


async def test_a_tool_that_ignores_its_cancellation_is_ended_with_its_process(tmp_path: Path) -> None:
    """The call returns when nothing of it runs any more, and the next one finds a new process at once."""
    async with effects(tmp_path) as one:
        call = one.begin("k", LONG_S)
        pid = await one.began("k")
        call.cancel()
        await ends_cancelled(call)
        assert not is_alive(pid)
        await until(lambda: one.kit.status("e").state == "ready")
        await one.kit.call("e.apply", {"key": "next"})
        assert await one.began("next") != pid
        assert one.kit.status("e").restarts == 1
        assert not one.marks("answer", "k")


async def test_a_tool_that_ends_in_time_costs_its_server_nothing(tmp_path: Path) -> None:
    """Its answer is not wanted, but it is awaited: only then is the slot free."""
    async with effects(tmp_path, Limits(stop_s=WAIT_S)) as one:
        call = one.begin("k", 0.5)
        pid = await one.began("k")
        call.cancel()
        await ends_cancelled(call)
        assert one.marks("answer", "k")
        assert is_alive(pid)
        assert one.kit.status("e").restarts == 0


async def test_calls_beside_it_may_finish_and_new_ones_are_refused(tmp_path: Path) -> None:
    """Ending one call makes no other's effect unknown; what comes meanwhile surely did not start."""
    async with effects(tmp_path) as one:
        stubborn, neighbour = one.begin("k", LONG_S), one.begin("beside", 3)
        await one.began("k")
        await one.began("beside")
        stubborn.cancel()
        await until(lambda: one.kit.status("e").state == "ending")
        refused = await one.kit.refusal("e.apply", {"key": "late"})
        assert (refused.code, refused.failure) == ("server_unavailable", Failure.WAIT_UNTIL), "it costs no try"
        assert (await neighbour)["content"][0]["text"] == "beside"
        await ends_cancelled(stubborn)
        assert not one.marks("effect", "late")


async def test_calls_beside_it_do_not_hold_it_up_for_ever(tmp_path: Path) -> None:
    """Past their time they fail as what they are: perhaps done, perhaps not. And only when their process is gone."""
    async with effects(tmp_path, Limits(stop_s=0.1, neighbours_s=0.1)) as one:
        stubborn = one.begin("k", LONG_S)
        beside = asyncio.create_task(one.kit.refusal("e.apply", {"key": "beside", "seconds": LONG_S}))
        await one.began("k")
        pid = await one.began("beside")
        stubborn.cancel()
        failed = await beside
        assert not is_alive(pid)
        assert (failed.code, failed.failure) == ("connection_lost", Failure.MAYBE_STARTED)
        await ends_cancelled(stubborn)


async def test_a_second_cancellation_does_not_free_the_slot(tmp_path: Path) -> None:
    """A timeout, then a cancel, then a drain: the tool runs as long as it runs."""
    async with effects(tmp_path, Limits(stop_s=WAIT_S)) as one:
        call = one.begin("k", 1)
        await one.began("k")
        for _ in range(3):
            call.cancel()
            await asyncio.wait({call}, timeout=0.05)
        await ends_cancelled(call)
        assert one.marks("answer", "k")


async def test_a_tool_that_is_trusted_is_told_and_no_more(tmp_path: Path) -> None:
    """`stop_s: 0`: for servers that stop a tool without a word, whose process is worth more than certainty."""
    async with effects(tmp_path, apply={"stop_s": 0}) as one:
        call = one.begin("k", 2)
        pid = await one.began("k")
        call.cancel()
        await ends_cancelled(call)
        assert not one.marks("answer", "k")
        await until(lambda: one.marks("answer", "k"))
        assert is_alive(pid)


async def test_closing_the_node_waits_for_no_grace(tmp_path: Path) -> None:
    """The second Ctrl-C: processes end, and calls that were being stopped with them."""
    async with effects(tmp_path, Limits(stop_s=WAIT_S)) as one:
        call = one.begin("k", LONG_S)
        pid = await one.began("k")
        call.cancel()
        await asyncio.wait({call}, timeout=0.05)
    await ends_cancelled(call)
    assert not is_alive(pid)
