"""The actuator dies anywhere, and what it began is carried on: docs/adr/0012-autoscaler.md.

A story is a list of things that happen, to the fleet, to its clouds and to the process. After each the
books and the clouds are checked; at the end everything is well again and the fleet must come to rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from orchestrator.autoscaler.cloud.errors import OutOfCapacity
from orchestrator.autoscaler.scale_policy import ScalePolicy
from orchestrator.autoscaler.testing.world import FIRST, POOL, SECOND, World
from orchestrator.autoscaler.values import ClaimState
from tasks.node import NodeState

POLICY = ScalePolicy(
    POOL, (replace(FIRST, is_spot=True), SECOND), max_machines=4, boot_limit_s=300.0, may_use_spot=True
)
REST_ROUNDS = 900
Happening = tuple[str, int]
HAPPENINGS = st.one_of(
    st.tuples(st.just("target"), st.integers(0, 4)),
    st.tuples(st.just("crash"), st.integers(0, 40)),
    st.tuples(st.just("rounds"), st.integers(1, 12)),
    st.tuples(st.just("work"), st.integers(1, 4)),
    st.tuples(st.just("done"), st.just(0)),
    st.tuples(st.just("answers_lost"), st.integers(1, 7)),
    st.tuples(st.just("down"), st.integers(1, 12)),
    st.tuples(st.just("no_capacity"), st.integers(1, 3)),
    st.tuples(st.just("ledger"), st.integers(1, 4)),
    st.tuples(st.just("notice"), st.integers(0, 3)),
    st.tuples(st.just("taken"), st.integers(0, 3)),
    st.tuples(st.just("stops"), st.integers(0, 3)),
    st.tuples(st.just("joins"), st.integers(0, 1)),
)


@given(
    story=st.lists(HAPPENINGS, min_size=1, max_size=25), seed=st.integers(0, 2**16), lag_s=st.sampled_from([0, 20, 100])
)
@example(story=[("target", 4), ("crash", 9), ("rounds", 3), ("crash", 14), ("rounds", 2)], seed=1, lag_s=100)
@example(story=[("target", 4), ("rounds", 9), ("target", 0), ("crash", 12), ("rounds", 12)], seed=2, lag_s=100)
@example(story=[("target", 2), ("rounds", 10), ("work", 2), ("target", 0), ("rounds", 6)], seed=3, lag_s=0)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_breaks_it_comes_to_rest_and_hurts_nobody(story: list[Happening], seed: int, lag_s: int) -> None:
    """No second machine of a claim, none ended at work, none above max, none forgotten, and the target is reached."""
    asyncio.run(_tell(story, seed, float(lag_s)))


@pytest.mark.parametrize("points", range(0, 60, 2))
def test_it_may_die_at_any_point_of_a_machines_life(points: int) -> None:
    """Coming, going, and wanted again right after: a process that ends there is carried on by the next."""
    coming: list[Happening] = [("target", 2), ("crash", points), ("rounds", 12)]
    wanted_again: list[Happening] = [("target", 2), ("rounds", 12), ("target", 0), ("rounds", 1)]
    wanted_again += [("crash", points // 3), ("target", 2), ("rounds", 2)]
    going: list[Happening] = [("target", 2), ("rounds", 14), ("target", 0), ("crash", points), ("rounds", 14)]
    for story in (coming, wanted_again, going):
        asyncio.run(_tell(story, points, 20.0))


async def _tell(story: list[Happening], seed: int, lag_s: float) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)  # tasks that died with it
    world, target = World(POLICY, seed=seed, lag_s=lag_s), 0
    foreign = await _foreign(world)
    for what, number in story:
        target = number if what == "target" else target
        if what in HAPPEN:
            HAPPEN[what](world, number)
        await world.rounds(number if what == "rounds" else 1, target=target)
        assert world.violations() == []
    _heal(world)
    await _rest(world, target, foreign)
    assert world.violations() == []
    assert world.leaks() == []
    assert foreign in {made.id for made in world.near.standing()}
    assert world.is_settled(target, beside=foreign)
    await _rest(world, 0, foreign)
    assert world.is_settled(0, beside=foreign)
    assert world.nodes.enrolled == set()
    assert world.violations() == []


async def _rest(world: World, target: int, beside: str) -> None:
    """Rounds, until nothing is left to be done; bounded by the longest pause."""
    for _ in range(REST_ROUNDS):
        await world.round(target=target)
        claims = world.claims(ClaimState.READY)
        is_served = all(world.nodes.state_of(claim.node) is NodeState.ACTIVE for claim in claims)
        if is_served and world.is_settled(target, beside=beside):
            return


def _nth(world: World, number: int) -> str | None:
    ours = [made.id for made in world.near.standing() if made.order.cluster == "test"]
    return ours[number % len(ours)] if ours else None


def _notice(world: World, number: int) -> None:
    if (machine := _nth(world, number)) is not None:
        world.near.made[machine].has_notice = True


def _taken(world: World, number: int) -> None:
    """One that its claim has heard of: else it is ordered again, and of two that a lagging list shows one is a leak."""
    if (machine := _nth(world, number)) in {claim.machine_id for claim in world.claims()} - {None}:
        world.near.take_away(str(machine))


def _stops(world: World, number: int) -> None:
    if (machine := _nth(world, number)) is not None:
        world.near.made[machine].is_stopped = True


def _answers_lost(world: World, number: int) -> None:
    world.near.faults.answers_lost = world.far.faults.answers_lost = number


def _down(world: World, number: int) -> None:
    world.near.faults.down = world.far.faults.down = number


def _no_capacity(world: World, number: int) -> None:
    world.near.faults.refusals = [OutOfCapacity("near", "small", "none left") for _ in range(number)]


def _ledger(world: World, number: int) -> None:
    world.books.failing = number


def _joins(world: World, number: int) -> None:
    world.nodes.joins = bool(number)


HAPPEN: dict[str, Callable[[World, int], None]] = {
    "crash": lambda world, number: world.points.crash_after(number),
    "work": lambda world, number: world.nodes.give_work(number),
    "done": lambda world, _: world.nodes.end_work(),
    "answers_lost": _answers_lost,
    "down": _down,
    "no_capacity": _no_capacity,
    "ledger": _ledger,
    "notice": _notice,
    "taken": _taken,
    "stops": _stops,
    "joins": _joins,
}


def _heal(world: World) -> None:
    for cloud in (world.near, world.far):
        cloud.faults.answers_lost, cloud.faults.down = 0, 0
        cloud.faults.refusals.clear()
    world.books.failing, world.nodes.joins = 0, True
    world.points.restart()
    world.nodes.end_work()


async def _foreign(world: World) -> str:
    """A machine of the same account that is none of ours."""
    from orchestrator.autoscaler.cloud.provider import Order

    world.near.is_written = lambda _: True
    machine = await world.near.create(Order("elsewhere", "elsewhere", "another", "their-pool"))
    world.near.is_written = world.books.rows.__contains__
    return machine.id
