"""A node whose wall clock is five minutes off, from its start or by a jump, keeps the fleet's time."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tasks.testing.wrong_clock import set_ahead
from worker.testing.fake_orchestrator import FakeOrchestrator
from worker.testing.node_process import node_process

OFF_S = 300.0
NEAR_S = 100.0
"""Less than a test takes on a slow machine, far less than the clock is off."""
EITHER_WAY = pytest.mark.parametrize("ahead_s", [OFF_S, -OFF_S], ids=["fast", "slow"])


@pytest.fixture
async def fake(redis_url: str) -> AsyncIterator[FakeOrchestrator]:
    """An orchestrator whose clock is right."""
    async with FakeOrchestrator(redis_url).serving() as fake:
        yield fake


async def _keeps_time(fake: FakeOrchestrator) -> None:
    """Deadlines are met and missed by the orchestrator's clock, and so are the times that are told."""
    runs = await fake.call("probe.echo", expires_at=time.time() + NEAR_S)
    late = await fake.call("probe.echo", expires_at=time.time() - 1.0)
    ran, expired = await fake.ended(runs), await fake.ended(late)
    assert ran.outcome.ending == "succeeded"
    assert ran.started_at == pytest.approx(time.time(), abs=NEAR_S)
    assert ran.ended_at == pytest.approx(time.time(), abs=NEAR_S)
    assert (expired.outcome.ending, expired.started_at) == ("expired", None)


@EITHER_WAY
async def test_a_node_five_minutes_off_expires_what_is_late_and_nothing_else(
    fake: FakeOrchestrator, tmp_path: Path, ahead_s: float
) -> None:
    """Wrong from its start: right from its join."""
    set_ahead(tmp_path / "ahead", ahead_s)
    module = ("tasks.testing.wrong_clock", str(tmp_path / "ahead"), "worker.cli")
    async with node_process(fake, tmp_path, os.environ, module=module) as node:
        await _keeps_time(fake)
        health = await node.health()
        assert health["clock_ahead_s"] == pytest.approx(ahead_s, abs=5.0)


@EITHER_WAY
async def test_a_nodes_clock_that_is_set_while_it_works_changes_nothing(
    fake: FakeOrchestrator, tmp_path: Path, ahead_s: float
) -> None:
    """Neither what runs nor what comes later."""
    set_ahead(tmp_path / "ahead", 0.0)
    module = ("tasks.testing.wrong_clock", str(tmp_path / "ahead"), "worker.cli")
    async with node_process(fake, tmp_path, os.environ, module=module) as node:
        running = await fake.call("probe.sleep", '{"seconds": 1.5}', expires_at=time.time() + NEAR_S)
        await node.health_until(lambda view: view["running"] == {"tools": 1, "agents": 0})
        set_ahead(tmp_path / "ahead", ahead_s)
        await _keeps_time(fake)
        assert (await fake.ended(running)).outcome.ending == "succeeded"


async def test_a_node_of_an_older_orchestrator_goes_by_its_own_clock(fake: FakeOrchestrator, tmp_path: Path) -> None:
    """Rolling upgrade: what is not said cannot be learnt."""
    fake.wall_s = None
    async with node_process(fake, tmp_path, os.environ):
        await _keeps_time(fake)
