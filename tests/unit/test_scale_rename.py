"""A fleet that is named anew while machines stand keeps them: each is listed and ended under its own tag."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.autoscaler.cloud.provider import Order
from orchestrator.autoscaler.scale_policy import ScalePolicy
from orchestrator.autoscaler.testing.cloud import Made
from orchestrator.autoscaler.testing.world import FIRST, POOL, World
from orchestrator.autoscaler.values import ClaimState

SPOT = replace(FIRST, is_spot=True)


async def renamed(world: World) -> None:
    """Another name in the pools file, and a start."""
    world.cluster = "renamed"
    await world.restart()


async def test_machines_outlive_a_new_name_of_their_fleet() -> None:
    """They serve on, the next one carries the new name, and every one is ended when it is not needed."""
    world = World()
    await world.rounds(12, target=2)
    await renamed(world)
    await world.rounds(40, target=2)
    assert world.is_settled(2)
    await world.rounds(12, target=3)
    assert sorted(made.order.cluster for made in world.standing()) == ["renamed", "test", "test"]
    await world.rounds(80, target=0)
    assert world.is_settled(0)
    assert (world.violations(), world.leaks()) == ([], [])


async def test_an_order_given_again_after_a_rename_is_the_same_order() -> None:
    """The answer was lost and the fleet named anew: its cloud is asked for the machine that is there."""
    world = World()
    world.near.faults.answers_lost = 1
    await world.round(target=1)
    await renamed(world)
    await world.rounds(20, target=1)
    assert world.is_settled(1)
    assert {order.cluster for order in world.near.orders} == {"test"}
    assert world.violations() == []


async def test_a_machine_of_a_former_name_whose_answer_was_lost_is_found_and_ended() -> None:
    """Its claim ends without having heard of it; the list under the former name tells."""
    world = World()
    world.near.faults.answers_lost = 1
    await world.round(target=1)
    await renamed(world)
    await world.rounds(80, target=0)
    assert world.is_settled(0)


async def test_a_former_name_may_be_another_fleets() -> None:
    """A machine under it that no claim of ours knows is not ended; one under the present name is."""
    world = World()
    await world.rounds(12, target=1)
    await renamed(world)
    for cluster in ("test", "renamed"):
        order = Order("zzz", "other-1", cluster, POOL)
        world.near.made[cluster] = Made(cluster, order, world.clock.wall_s() - 900.0)
    await world.rounds(40, target=1)
    assert world.is_settled(1, beside="test")
    assert [leak.machine_id for leak in world.leaks()] == ["renamed"]


async def test_a_former_name_is_listed_until_its_machines_have_been_gone_for_an_hour() -> None:
    """A list costs a call; a machine that shows up late costs money."""
    world = World()
    await world.rounds(12, target=1)
    await renamed(world)
    await world.round()
    assert world.parts.book.clusters("near") == ["renamed", "test"]
    assert world.parts.book.clusters("far") == ["renamed"]
    await world.rounds(60, target=0)
    assert world.parts.book.clusters("near") == ["renamed", "test"]
    world.clock.advance(3700.0)
    assert world.parts.book.clusters("near") == ["renamed"]


async def test_a_spot_machine_of_a_former_name_is_noticed() -> None:
    """Its provider takes it away: it is replaced, by one of the new name."""
    world = World(ScalePolicy(POOL, (SPOT,), max_machines=4, may_use_spot=True))
    await world.rounds(12, target=1)
    await renamed(world)
    world.standing()[0].has_notice = True
    await world.rounds(40, target=1)
    assert world.is_settled(1)
    assert [claim.cluster for claim in world.claims(ClaimState.READY)] == ["renamed"]


async def test_a_claim_that_an_older_release_wrote_has_the_present_name() -> None:
    """Its row says none; from the first start of this release on it does, and no later name changes it."""
    world = World()
    await world.rounds(12, target=1)
    row = world.books.rows[world.claims()[0].id]
    world.books.rows[row.id] = replace(row, body_json=row.body_json.replace(',"cluster":"test"', ""))
    assert world.claims()[0].cluster == ""
    await world.restart()
    assert [claim.cluster for claim in world.parts.book.all()] == ["test"]
    await renamed(world)
    assert [claim.cluster for claim in world.parts.book.all()] == ["test"]
    assert world.claims()[0].cluster == "test"
