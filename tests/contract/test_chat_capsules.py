"""A chat model's run, cut off on one node and going on on another: its files, conversation, limits and bill."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tasks.tool import OnNodeLoss
from tests.contract.capsule_store import Store
from tests.contract.chat_node import glm, run
from tests.contract.workspace_rig import Rig
from worker.testing.chat_double import ChatDouble, Step, Trouble, use

PRICES = {"glm-5": {"input": 1.0, "output": 3.2, "cache_read": 0.2}}
ONE_ANSWER_USD = (600 * 1.0 + 400 * 0.2 + 50 * 3.2) / 1_000_000
SCRIPT = [
    Step("I look.", calls=(use("list_files"),)),
    Step(calls=(use("write_file", path="made.txt", content="one\n"), use("read_file", path="made.txt"))),
    Step(calls=(use("write_file", path="more.txt", content="two\n"),)),
    Step("All is done."),
]
MORE: dict[str, Any] = {"prices": PRICES, "capsule_every_s": 0.01}


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """A project."""
    made = Rig(tmp_path)
    made.begin()
    return made


async def _cut_off(folder: Path, rig: Rig, **more: Any) -> Store:
    """A run whose second answer was done and saved, and that is gone."""
    folder.mkdir()
    store, model = Store(), ChatDouble(SCRIPT)
    async with glm(folder, model, {"shop": rig.project}, **MORE) as server:
        model.troubles = [Trouble(), Trouble(), Trouble(hangs=True)]
        running = asyncio.create_task(run(server, project="shop", keeping=store, **more))
        await store.until_turn(2)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    return store.of_the_next()


async def test_it_goes_on_where_its_last_turn_ended(tmp_path: Path, rig: Rig) -> None:
    """One conversation, one patch, one bill; the second node does nothing again."""
    store, model = await _cut_off(tmp_path / "a", rig), ChatDouble(SCRIPT)
    (tmp_path / "b").mkdir()
    async with glm(tmp_path / "b", model, {"shop": rig.project}, **MORE) as server:
        assert server.tools()[0].on_node_loss is OnNodeLoss.RESUME
        answer = await run(server, project="shop", keeping=store)
    structured = answer["structuredContent"]
    assert (structured["ending"], structured["resumed"], structured["resumed_from"]) == ("succeeded", 1, ["a1"])
    assert (structured["turns"], structured["cost_usd"]) == (4, pytest.approx(4 * ONE_ANSWER_USD))
    assert "+one\n" in structured["patch"]
    assert "+two\n" in structured["patch"]
    asked = model.requests[0]["messages"]
    assert [message["role"] for message in asked].count("tool") == 3
    assert "You were interrupted" in asked[-1]["content"]
    assert len(model.requests) == 2


@pytest.mark.parametrize(
    ("limit", "fault"), [({"max_turns": 3}, "turns"), ({"max_cost_usd": 3.6 * ONE_ANSWER_USD}, "money")]
)
async def test_limits_hold_over_both_nodes(tmp_path: Path, rig: Rig, limit: dict[str, Any], fault: str) -> None:
    """What was used before counts."""
    store, model = await _cut_off(tmp_path / "a", rig, **limit), ChatDouble(SCRIPT)
    (tmp_path / "b").mkdir()
    async with glm(tmp_path / "b", model, {"shop": rig.project}, **MORE) as server:
        answer = await run(server, project="shop", keeping=store, **limit)
    structured = answer["structuredContent"]
    assert (structured["ending"], structured["fault"]) == ("limit", fault)
    assert "+one\n" in structured["patch"]
