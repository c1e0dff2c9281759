"""What a look leads to at a slow or stubborn cloud: one sweep at a time, and few questions."""

from __future__ import annotations

import asyncio

from orchestrator.autoscaler.act.exclusive import Exclusive
from orchestrator.autoscaler.act.looks import Look
from orchestrator.autoscaler.act.sweep import Sweep
from orchestrator.autoscaler.cloud.provider import Order
from orchestrator.autoscaler.testing.cloud import Made
from orchestrator.autoscaler.testing.world import POOL, World

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
