"""Fairness between projects: bounded waits for everybody, whatever the others have waiting."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.dispatch.testing import desk_of, fleet_of, seat, waiting
from orchestrator.ledger.values import Waiting
from tasks.invocation import Lane
from tasks.placement import Placement
from tasks.pool import PoolPolicy, Strategy


def ids(released: list[tuple[Waiting, Placement]]) -> list[str]:
    """What was released, in order."""
    return [call.id for call, _ in released]


def test_priority_does_not_jump_over_another_project() -> None:
    """One project cannot buy another one's turns with priority."""
    desk = desk_of(fleet_of([seat("a1", slots=20)]))
    desk.fill("greedy", 8, priority=9)
    desk.fill("modest", 2, priority=0)
    order = [call.project for call, _ in desk.release_all()]
    assert order[:4].count("modest") == 2


def test_calls_without_a_project_share_their_tenants_turn() -> None:
    """Anonymous calls of one tenant are one party; another tenant's are another."""
    desk = desk_of(fleet_of([seat("a1", slots=20)]))
    desk.fill(None, 6)
    desk.backlog.add(waiting("other", None, tenant="blue", accepted_at=9.0), 0.0)
    assert ids(desk.release_all()).index("other") <= 1


def test_projects_of_the_same_name_in_two_tenants_take_turns() -> None:
    """A tenant cannot spend the turns of another one's project by using its name."""
    desk = desk_of(fleet_of([seat("a1", slots=20)]))
    desk.fill("shop", 6)
    desk.backlog.add(waiting("other", "shop", tenant="blue", accepted_at=9.0), 0.0)
    assert ids(desk.release_all()).index("other") <= 1


@settings(max_examples=30)
@given(
    slots=st.integers(1, 4),
    nodes=st.integers(1, 3),
    before=st.integers(0, 60),
    shapes=st.integers(1, 3),
    priorities=st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True),
    strategy=st.sampled_from(list(Strategy)),
)
def test_first_call_of_a_project_waits_at_most_twice_the_slots(
    *, slots: int, nodes: int, before: int, shapes: int, priorities: list[int], strategy: Strategy
) -> None:
    """Behind 10,000 calls of one project (here: enough), another one's first call is released soon."""
    tools = [f"x.t{index}" for index in range(shapes)]
    seats = [seat(f"a{n}", slots=slots, tools=frozenset(tools)) for n in range(nodes)]
    desk = desk_of(fleet_of(seats, PoolPolicy("east", strategy, prefetch=1)))
    for tool, priority in zip(itertools.cycle(tools), priorities, strict=False):
        desk.fill("greedy", 150 // len(priorities), tool=tool, priority=priority)
    running: list[Placement] = []
    for _ in range(before):
        released = desk.release_all(limit=1)
        if not released:
            desk.give_back(running.pop(0))
        running += [placement for _, placement in released]
    desk.backlog.add(waiting("first", "modest", tool=tools[0], priority=0), 0.0)
    for placement in running:
        desk.give_back(placement)
    assert desk.releases_until("first", 100) <= 2 * slots * nodes


def test_first_call_is_released_within_twice_the_slots_behind_10_000() -> None:
    """The promise at its own size, over two shapes, with the greedy project warm on every slot."""
    seats = [seat(f"a{n}", slots=4, tools=frozenset({"x.a", "x.b"})) for n in range(2)]
    desk = desk_of(fleet_of(seats))
    desk.fill("greedy", 5_000, tool="x.a")
    desk.fill("greedy", 5_000, tool="x.b", priority=9)
    running = [placement for _, placement in desk.release_all()]
    desk.now_s = 10.0
    for placement in running:
        desk.give_back(placement)
    desk.backlog.add(waiting("first", "modest", tool="x.a", accepted_at=10.0), 10.0)
    assert desk.releases_until("first", 100) <= 2 * 8


def test_fast_pool_of_a_project_does_not_cost_it_turns_in_a_slow_one() -> None:
    """Turns are counted per set of nodes: what runs elsewhere takes nothing from anybody here."""
    fast, slow = seat("f1", "fast", slots=1, tools=frozenset({"x.f"})), seat("s1", "slow", slots=1)
    desk = desk_of(fleet_of([fast, slow], PoolPolicy("fast", prefetch=0), PoolPolicy("slow", prefetch=0)))
    desk.fill("both", 200, tool="x.f")
    desk.fill("both", 50)
    desk.fill("only", 50)
    slow_order: list[str | None] = []
    running = [row[1] for row in desk.release_all()]
    for turn in range(200):
        for placement in [p for p in running if p.pool == "fast" or turn % 10 == 0]:
            running.remove(placement)
            desk.give_back(placement)
        released = desk.release_all()
        running += [placement for _, placement in released]
        slow_order += [call.project for call, placement in released if placement.pool == "slow"]
    assert abs(slow_order.count("both") - slow_order.count("only")) <= 2


def test_stream_of_new_projects_does_not_starve_an_old_one() -> None:
    """Every newcomer gets its first turn, but not all of them before anybody's second."""
    desk = desk_of(fleet_of([seat("a1", slots=1)], PoolPolicy("east", prefetch=0)))
    desk.fill("old", 100)
    desk.fill("new0", 1)
    released = []
    for number in range(1, 201):
        desk.fill(f"new{number}", 1)
        ((call, placement),) = desk.release_all()
        released.append(call.project)
        desk.give_back(placement)
    assert released.count("old") >= 8


@pytest.mark.parametrize("patient", [1, 2, 9])
def test_project_that_asks_one_by_one_gets_no_more_than_its_share(patient: int) -> None:
    """A caller that adds its next call as soon as one is released does not pass the others each time."""
    desk = desk_of(fleet_of([seat("a1", slots=1)], PoolPolicy("east", prefetch=0)))
    for number in range(patient):
        desk.fill(f"patient{number}", 60)
    released: list[str | None] = []
    for number in range(100):
        if "one" not in desk.backlog:
            desk.backlog.add(waiting("one", "one", fence=number), 0.0)
        ((call, placement),) = desk.release_all()
        released.append(call.project)
        desk.give_back(placement)
    assert abs(released.count("one") - 100 / (patient + 1)) <= 2


def test_project_that_waited_for_its_node_does_not_shut_out_the_others() -> None:
    """It waited of its own will: it catches up by one turn, not by all that the others had meanwhile."""
    policy = PoolPolicy("east", prefetch=0, warm_wait_tools_s=60.0)
    desk = desk_of(fleet_of([seat("a1", slots=1), seat("a2", slots=1)], policy))
    desk.occupancy.by_node[Lane.TOOLS]["a1"] = 1
    desk.affinity.placed("loyal", "a1", now_wall_s=0.0, ttl_s=1e6, fleet=desk.fleet)
    desk.fill("loyal", 50)
    desk.fill("busy", 100)
    order: list[str | None] = []
    for turn in range(60):
        desk.now_s = 100.0 if turn >= 40 else 0.0
        ((call, placement),) = desk.release_all()
        order.append(call.project)
        desk.give_back(placement)
    assert order[:40].count("loyal") == 0
    assert 9 <= order[40:].count("loyal") <= 12


@pytest.mark.parametrize("at_once", [1, 4])
def test_sets_of_nodes_that_overlap_take_turns(at_once: int) -> None:
    """A call that fits one node is not starved by calls that fit it and others, one credit at a time or many."""
    a1 = seat("a1", slots=at_once, tools=frozenset({"x.wide", "x.narrow"}))
    a2 = seat("a2", slots=at_once, tools=frozenset({"x.wide"}))
    desk = desk_of(fleet_of([a1, a2], PoolPolicy("east", prefetch=0)))
    desk.fill(None, 100, tool="x.wide")
    running = [placement for _, placement in desk.release_all()]
    desk.fill("narrow", 10, tool="x.narrow")
    tools: list[str] = []
    for _ in range(8):
        for placement in [running.pop(0) for _ in range(at_once)]:
            desk.give_back(placement)
        released = desk.release_all()
        running += [placement for _, placement in released]
        tools += [call.tool for call, _ in released]
    assert 1 / 4 <= tools.count("x.narrow") / len(tools) <= 3 / 4
