"""Flower on a real Sentinel set, whose master dies: history and queues come from the new one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.chaos.fleet import Fleet
from tests.chaos.sentinel import DATA, SENTINELS
from tests.contract.flower_rig import call, flower_on, node

if TYPE_CHECKING:
    from pathlib import Path

WITHIN_S = 60.0
pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore::DeprecationWarning")]


async def test_flower_follows_to_the_new_master(tmp_path: Path) -> None:
    """One address names the sentinels; after the master's end Flower asks for the past again, and hears of nodes."""
    fleet = Fleet(tmp_path, (), is_sentinel=True)
    found = fleet.sentinels
    assert found is not None
    try:
        for name in (*DATA, *SENTINELS):
            await fleet.started(fleet.kept[name])
        await found.healed(WITHIN_S)
        async with flower_on(found.url, found.url) as rig:
            rig.past.append(call("id-1", node="a1", ago_s=60.0))
            rig.nodes.append(node("a1"))
            await rig.until("/api/tasks", lambda answer: "id-1" in answer.text)
            await rig.until("/api/queues/length", lambda answer: "mcpfleet.n.a1.tools" in answer.text)
            before = await found.failed_over(None, WITHIN_S)
            await fleet.kill(before)
            await found.failed_over(before, WITHIN_S)
            rig.past.append(call("id-2", node="b1", ago_s=30.0))
            rig.nodes.append(node("b1"))
            await rig.until("/api/tasks", lambda answer: "id-2" in answer.text)
            await rig.until("/api/queues/length", lambda answer: "mcpfleet.n.b1.tools" in answer.text)
    finally:
        await fleet.close()
