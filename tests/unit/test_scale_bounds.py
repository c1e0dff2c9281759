"""What the actuator never does, however slow its clouds are and whatever it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from orchestrator.autoscaler.scale_policy import ScalePolicy
from orchestrator.autoscaler.testing.world import FIRST, POOL, SECOND, World
from orchestrator.autoscaler.values import ClaimState

POLICY = ScalePolicy(POOL, (FIRST, SECOND), max_machines=4, boot_limit_s=300.0)


async def test_a_slow_cloud_holds_up_only_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list and an order that hang keep no other machine from moving, and no round from ending."""
    world = World(replace(POLICY, ladder=(SECOND,)))
    never = asyncio.Event()

    async def hang(_cluster: str) -> list[object]:
        await never.wait()
        return []

    monkeypatch.setattr(world.near, "machines", hang)
    for _ in range(12):
        await world.parts.actuator.act(world.decision(1), world.policy)
        await world.parts.actuator.step()
        await _until_idle(lambda: len(world.parts.looks.under_way()) <= 1 and not world.parts.actuator._tasks)
        world.clock.advance(5.0)
        world.nodes.tick()
    assert [claim.state for claim in world.claims()] == [ClaimState.READY]
    never.set()
    await world.parts.actuator.stop()


async def test_machines_that_cannot_be_ended_are_not_replaced_for_ever() -> None:
    """An account that may order and not end would pay for more with every swing: what is stuck counts."""
    world = World(POLICY)
    world.near.faults.is_stuck = True
    for _ in range(6):
        await world.rounds(12, target=3)
        await world.rounds(160, target=0)
    assert len(world.standing()) == POLICY.max_machines
    world.near.faults.is_stuck = False
    await world.rounds(60, target=0)
    await world.rounds(12, target=3)
    assert world.is_settled(3)


async def test_only_so_many_orders_at_once() -> None:
    """A burst asks a cloud for five machines at a time, not for fifty."""
    world = World(replace(POLICY, max_machines=50, ladder=(FIRST,)))
    await world.parts.actuator.act(world.decision(50), world.policy)
    await world.parts.actuator.step()
    await world.parts.actuator.settle()
    assert len(world.near.orders) == 5
    await world.rounds(30, target=50)
    assert world.is_settled(50)


async def test_an_order_that_may_have_been_written_counts() -> None:
    """After a write whose answer was lost the ledger is asked before anything more is ordered."""
    world = World()
    world.books.failing = 1
    await world.rounds(2, target=4)
    assert len(world.claims()) == 4
    await world.rounds(12, target=4)
    assert world.is_settled(4)
    assert world.violations() == []


async def test_no_decision_passes_the_limit() -> None:
    """Whatever a strategy wants, the actuator orders no more than the policy allows."""
    world = World()
    await world.parts.actuator.act(world.decision(9), world.policy)
    assert len(world.claims()) == 4


async def _until_idle(is_idle: Callable[[], bool]) -> None:
    for _ in range(1000):
        if is_idle():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never became idle")
