"""The real Claude Code, cut off on one node and going on on another: its limits hold over both."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tasks.outcome import Failure
from tasks.tool import OnNodeLoss
from tests.contract.agents import bench
from tests.contract.capsule_store import Store
from tests.contract.workspace_rig import Rig
from worker.sidecars.capsule import CapsuleBroken
from worker.testing.messages_double import INPUT_TOKENS, OUTPUT_TOKENS, text, use
from worker.upstreams.errors import UpstreamError

pytestmark = pytest.mark.live("claude")

COST_USD = (INPUT_TOKENS * 3.0 + OUTPUT_TOKENS * 15.0) / 1_000_000
STEPS = [[use("Bash", command=f"echo {step} >> made.txt")] for step in range(20)]
TOOLS: dict[str, Any] = {"allowed_tools": ["Bash"]}


async def _cut_off(folder: Path, rig: Rig, **more: Any) -> Store:
    """A run that did one thing and is gone."""
    folder.mkdir()
    store = Store()
    async with bench(folder, STEPS, {"shop": rig.project}) as at:
        at.model.holds.add(1)
        running = asyncio.create_task(at.call(project="shop", keeping=store, **TOOLS, **more))
        await store.until_turn(1)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    return store.of_the_next()


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """A project."""
    made = Rig(tmp_path)
    made.begin()
    return made


@pytest.mark.parametrize(("limit", "fault"), [({"max_cost_usd": 2.5 * COST_USD}, "money"), ({"max_turns": 3}, "turns")])
async def test_limits_hold_over_both_nodes(tmp_path: Path, rig: Rig, limit: dict[str, Any], fault: str) -> None:
    """What was spent before counts; the work of both is there, and the bill is one."""
    store = await _cut_off(tmp_path / "a", rig, **limit)
    (tmp_path / "b").mkdir()
    async with bench(tmp_path / "b", STEPS, {"shop": rig.project}) as at:
        answer = await at.call(project="shop", keeping=store, **TOOLS, **limit)
    structured = answer["structuredContent"]
    assert (answer["isError"], structured["ending"], structured["fault"]) == (True, "limit", fault)
    assert (structured["resumed"], structured["resumed_from"]) == (1, ["a1"])
    assert structured["cost_usd"] == pytest.approx(3 * COST_USD)
    assert "+0\n" in structured["patch"]
    assert structured["usage"]["input"] == 3 * INPUT_TOKENS


async def test_what_does_not_fit_starts_nothing(tmp_path: Path, rig: Rig) -> None:
    """Another version may fit elsewhere; another call's never does; a node that saves nothing goes on with nothing."""
    store = await _cut_off(tmp_path / "a", rig)
    (tmp_path / "b").mkdir()
    async with bench(tmp_path / "b", [[text("never")]], {"shop": rig.project}, capsule_every_s=0.0) as at:
        assert at.server.tools()[0].on_node_loss is OnNodeLoss.ASK
        with pytest.raises(UpstreamError) as unfit:
            await at.call(project="shop", keeping=store, **TOOLS)
        assert (unfit.value.info.code, unfit.value.info.failure) == ("capsule_unfit", Failure.WAIT_UNTIL)
    async with bench(tmp_path / "b", [[text("never")]], {"shop": rig.project}) as at:
        assert at.server.tools()[0].on_node_loss is OnNodeLoss.RESUME
        with pytest.raises(UpstreamError) as broken:
            await at.call("another prompt", project="shop", keeping=store, **TOOLS)
        assert (broken.value.info.code, broken.value.info.failure) == (CapsuleBroken.code, Failure.PERMANENT)
        assert at.model.requests == []
