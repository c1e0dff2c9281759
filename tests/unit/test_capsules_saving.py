"""When a running session is saved: at a quiet point, one at a time, at a pace."""

from __future__ import annotations

import asyncio

import pytest

from tasks.errors import OrchestratorDown
from tests.unit.capsule_rig import WAIT_S, bench
from worker.sidecars import capsules as module
from worker.sidecars.capsule import Used
from worker.sidecars.sidecar import (
    ToolBegan,
    ToolEnded,
    Usage,
)
from worker.workspaces.errors import PatchTooLarge


async def test_a_turn_that_ended_is_saved() -> None:
    """With its transcript, files, turns and money, and where it was."""
    async with bench() as at:
        at.turn("t1")
        capsule = await at.is_saved()
    assert (capsule.session, capsule.transcript, capsule.patch) == ("session-1", "use t1\nanswer t1\n", b"patch")
    assert (capsule.fence, capsule.number, capsule.was_on) == (3, 1, ("a1",))
    assert capsule.used == Used(turns=1, usage=Usage(input=10), cost_usd=0.25)


async def test_nothing_is_saved_while_a_tool_is_at_work() -> None:
    """Two at once: the first that ends is no quiet point."""
    async with bench() as at:
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
    async with bench() as at:
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
    async with bench() as at:
        at.files.gate.clear()
        at.turn("t1")
        await at.is_read()
        at.runtime.text += "words\n"
        at.files.gate.set()
        assert (await at.is_saved()).transcript == "use t1\nanswer t1\n"


async def test_a_transcript_that_lags_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files with an effect that the conversation does not know of would be done twice."""
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.0)
    async with bench() as at:
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
    async with bench(every_s=30.0) as at:
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
    async with bench(limit_bytes=10) as at:
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
    async with bench() as at:
        at.store.faults.append(OrchestratorDown("http://x", "away"))
        at.turn("t1")
        assert (await at.is_saved()).used.turns == 1
    assert at.store.faults == []
