"""What a look leads to at a slow or stubborn cloud: one sweep at a time, and few questions."""

from __future__ import annotations

import asyncio

from orchestrator.autoscaler.act.exclusive import Exclusive
from orchestrator.autoscaler.act.looks import Look
from orchestrator.autoscaler.act.sweep import Sweep
from orchestrator.autoscaler.cloud.provider import Order
from orchestrator.autoscaler.testing.cloud import Made
from orchestrator.autoscaler.testing.world import POOL, World
from orchestrator.autoscaler.values import ClaimState
from tasks.node import NodeState

LOOK_S = 35.0
"""Longer than looks are apart where nothing moves."""


def strays(world: World, number: int) -> None:
    """Old machines under our tag that nobody claims."""
    for index in range(number):
        name = f"stray-{index}"
        order = Order(name, f"other-{index}", world.cluster, POOL)
        world.near.made[name] = Made(name, order, world.clock.wall_s() - 900.0)


async def stepped(world: World, number: int) -> None:
    """So many steps, each with a look that has come; nothing is waited for that hangs."""
    for _ in range(number):
        await world.parts.actuator.step()
        for _ in range(20):
            await asyncio.sleep(0)
        world.clock.advance(LOOK_S)


async def test_a_provider_that_hangs_has_one_sweep_at_a_time() -> None:
    """While one machine's end hangs, later looks do not ask for it again, and other clouds are swept."""
    world = World()
    strays(world, 2)
    world.near.ends.clear()
    world.far.made["stray-far"] = Made("stray-far", Order("x", "other", world.cluster, POOL), 1.0)
    await stepped(world, 8)
    assert world.near.ended == ["stray-0"]
    assert [made.id for made in world.far.standing()] == []
    world.near.ends.set()
    await world.rounds(4, seconds=LOOK_S)
    assert world.standing() == []


async def test_a_cloud_that_never_answers_does_not_end_sweeps() -> None:
    """The sweep gives up on that machine and takes the next; a later look asks again."""
    world = World()
    strays(world, 2)
    sweep = Sweep(
        book=world.parts.book, clouds=world.clouds, nodes=world.nodes, steps=world.parts.steps, exclusive=Exclusive(),
        tell=world.events.append, leads=lambda: True, answer_limit_s=0.01,
    )  # fmt: skip
    world.near.ends.clear()
    for number in range(3):
        await sweep.apply(Look("near", number, world.clock.wall_s(), tuple(await world.near.machines(world.cluster))))
        world.clock.advance(LOOK_S)
    assert world.near.ended == ["stray-0", "stray-1"] * 2


async def test_a_machine_that_no_list_shows_is_asked_for_ever_less_often() -> None:
    """Its cloud knows it and does not list it: ten questions in the first hour, six in the next, and it stays."""
    world = World()
    await world.rounds(12, target=1)
    claim = world.claims()[0]
    world.near.unlisted.add(claim.machine_id or "")
    world.near.asked.clear()
    await world.rounds(720)
    assert 8 <= len(world.near.asked) <= 10
    world.near.asked.clear()
    await world.rounds(720)
    assert 5 <= len(world.near.asked) <= 7
    assert world.is_settled(1)


async def test_a_machine_that_its_cloud_knows_again_is_no_longer_told() -> None:
    """By its id, though no list shows it yet: what an operator is told is so now."""
    world = World()
    await world.rounds(12, target=1)
    world.clock.advance(600.0)
    world.near.lag_s = 10_000.0  # as if it were unknown
    await world.rounds(40, target=1)
    assert world.parts.sweep.unlisted
    world.near.unlisted.add(world.claims()[0].machine_id or "")
    world.near.lag_s = 0.0
    await world.rounds(240, target=1)
    assert world.is_settled(1)
    assert world.parts.sweep.unlisted == {}


async def test_a_node_that_falls_silent_is_reason_to_ask_at_once() -> None:
    """The pause is for a node that is there; once it is lost, its vanished machine is given up at the next look."""
    world = World()
    await world.rounds(12, target=1)
    claim = world.claims()[0]
    world.clock.advance(600.0)
    world.near.lag_s = 10_000.0  # as if it were unknown
    await world.rounds(400)
    assert world.claims()[0].state is ClaimState.READY
    world.nodes.joined[claim.node].state = NodeState.LOST
    await world.rounds(8)
    assert world.claims()[0].failed_at is not None
