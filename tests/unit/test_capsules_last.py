"""The last capsule of a run whose runtime has ended: all that it did, or none."""

from __future__ import annotations

import asyncio

import pytest

from tasks.errors import OrchestratorDown
from tests.unit.capsule_rig import bench
from worker.sidecars.sidecar import ToolBegan


async def test_the_last_of_a_run_that_ended_is_saved() -> None:
    """With what its last turn did, though the pace would have it wait; whoever asks knows that it is there."""
    async with bench(every_s=3600.0) as at:
        at.turn("t1")
        await at.is_saved()
        at.turn("t2")
        assert await at.saver.last()
        assert (await at.is_saved()).used.turns == 2
    assert at.store.numbers == [1, 2]


async def test_what_is_being_read_when_a_run_ends_is_read_to_its_end() -> None:
    """Nobody reads beside it, nor meets what half of it left behind."""
    async with bench() as at:
        at.files.gate.clear()
        at.turn("t1")
        await at.is_read()
        last = asyncio.create_task(at.saver.last())
        for _ in range(9):
            await asyncio.sleep(0)
        assert (at.files.busy, last.done()) == (1, False)
        at.files.gate.set()
        assert await last
    assert (at.files.most, at.store.numbers) == (1, [1])


async def test_a_run_that_ended_within_a_tool_has_no_last() -> None:
    """Half of what the tool did would be in its files, and nothing of it in its conversation."""
    async with bench() as at:
        at.turn("t1")
        await at.is_saved()
        at.saver.heard(ToolBegan("t2", "Bash", ""))
        assert not await at.saver.last()
    assert at.store.numbers == [1]


async def test_a_runtime_that_cannot_be_read_ends_no_run_that_is_over() -> None:
    """Its answer and its patch are there, and worth more than the capsule."""
    async with bench(every_s=3600.0) as at:
        at.turn("t1")
        await at.is_saved()
        at.turn("t2")
        at.files.fault = ValueError("no such form")
        assert not await at.saver.last()
    assert at.store.numbers == [1]


@pytest.mark.parametrize("is_kept", [True, False])
async def test_a_last_that_cannot_be_saved_is_none_unless_it_was_before(is_kept: bool) -> None:
    """The store is down: what it took of this very turn is as good, of an earlier one it is not."""
    async with bench() as at:
        at.turn("t1")
        await at.is_saved()
        if not is_kept:
            at.store.faults += [OrchestratorDown("http://x", "away")] * 9
            at.turn("t2")
        at.store.faults.append(OrchestratorDown("http://x", "away"))
        assert await at.saver.last() is is_kept
