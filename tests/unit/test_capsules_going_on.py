"""With what a run goes on that was saved elsewhere, and what does not fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tasks.outcome import Failure
from tasks.testing.clock import FakeClock
from tests.unit.capsule_rig import ARGUMENTS, TASK, Runtime, bench
from worker.sidecars.capsule import CapsuleBroken, Used, sealed
from worker.sidecars.capsules import UNFIT_S, Capsules, going_on, in_all, used_up
from worker.sidecars.sidecar import (
    Ending,
    Fault,
    Result,
    SessionMode,
    Usage,
)
from worker.upstreams.errors import UpstreamError
from worker.upstreams.upstream import Ask


async def test_a_run_that_went_on_counts_on() -> None:
    """Number, turns, money, and the nodes that it was on."""
    async with bench() as first:
        first.turn("t1")
        left = await first.is_saved()
    async with bench(left=left) as second:
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
    async with bench() as at:
        at.turn("t1")
        await at.is_saved()
        keeping = replace(at.store, left="digest")
    ask = Ask("inv-1", None, None, lambda *_: None, changes.get("project", "shop"), keeping=keeping)
    here = Capsules(Runtime(), changes.get("tool", "agent.run"), FakeClock(), 0.0)
    with pytest.raises(CapsuleBroken, match=wrong):
        await here.left(changes.get("arguments", ARGUMENTS), None, ask)


@pytest.mark.parametrize(
    ("booked_usd", "counts_usd"),
    [
        pytest.param(None, 0.25, id="nobody knows more"),
        pytest.param(0.1, 0.25, id="the capsule knows more"),
        pytest.param(0.75, 0.75, id="it spent more before it was lost"),
    ],
)
async def test_money_is_counted_to_the_end_of_the_lost_attempt(booked_usd: float | None, counts_usd: float) -> None:
    """Between its last capsule and its end a run may spend what it has no right to spend twice."""
    async with bench() as at:
        at.turn("t1")
        await at.is_saved()
        keeping = replace(at.store, left="digest", spent_usd=booked_usd)
    ask = Ask("inv-1", None, None, lambda *_: None, "shop", keeping=keeping)
    left = await Capsules(Runtime(), "agent.run", FakeClock(), 0.0).left(ARGUMENTS, None, ask)
    assert left is not None
    assert left.used.cost_usd == counts_usd


async def test_another_version_of_the_runtime_leaves_it_to_another_node() -> None:
    """Nothing was started, so it waits, at no cost in tries; another model is only said."""
    async with bench() as at:
        at.turn("t1")
        left = await at.is_saved()
        keeping = replace(at.store, left="digest")
    lines = list[str]()
    ask = Ask("inv-1", None, None, lambda _done, _total, line: lines.append(line or ""), "shop", keeping=keeping)
    with pytest.raises(UpstreamError) as refused:
        await Capsules(Runtime(version="agent 2"), "agent.run", FakeClock(), 0.0).left(ARGUMENTS, None, ask)
    info = refused.value.info
    assert (info.code, info.failure, info.retry_after_s) == ("capsule_unfit", Failure.WAIT_UNTIL, UNFIT_S)
    assert info.message.startswith("this run began with agent 1; this node has agent 2; it waits for a node")
    assert await Capsules(Runtime(), "agent.run", FakeClock(), 0.0).left(ARGUMENTS, "m2", ask) == left
    assert lines == ["goes on with the model m2; it began with m"]
    assert sealed(left) == keeping.data
