"""How a pool spreads calls: each strategy's promise, over what `route` decides."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.dispatch.spread import Spread
from orchestrator.dispatch.testing import desk_of, fleet_of, seat, waiting
from orchestrator.dispatch.view import Seat
from tasks.invocation import Lane
from tasks.placement import Placement
from tasks.pool import PoolPolicy, Strategy


def nodes_for(strategy: Strategy, seats: list[Seat], number: int, **changes: Any) -> list[str | None]:
    """Where so many calls without a project go, one after the other, none of them ending."""
    desk = desk_of(fleet_of(seats, PoolPolicy("east", strategy)))
    for index in range(number):
        desk.backlog.add(waiting(f"c{index:03}", accepted_at=index, **changes), 0.0)
    return [placement.node for _, placement in desk.release_all()]


def nodes_for_ended(strategy: Strategy, seats: list[Seat], number: int) -> list[str | None]:
    """The same, each call ending before the next one comes."""
    desk = desk_of(fleet_of(seats, PoolPolicy("east", strategy)))
    taken: list[str | None] = []
    for index in range(number):
        desk.backlog.add(waiting(f"c{index}"), 0.0)
        ((_, placement),) = desk.release_all()
        desk.give_back(placement)
        taken.append(placement.node)
    return taken


def test_least_connections_fills_by_share_of_slots() -> None:
    """A node with three times the slots holds three times the calls."""
    seats = [seat("small", slots=4), seat("large", slots=12)]
    assert Counter(nodes_for(Strategy.LEAST_CONNECTIONS, seats, 8)) == {"small": 2, "large": 6}


def test_least_connections_prefers_weight_on_a_tie() -> None:
    """Where nothing runs, the heavier node is first."""
    seats = [seat("a", slots=4), seat("b", slots=4, weight=2.0), seat("c", slots=4)]
    assert nodes_for(Strategy.LEAST_CONNECTIONS, seats, 1) == ["b"]


def test_least_connections_takes_turns_where_nothing_runs() -> None:
    """At light load calls do not all go to the first name."""
    assert nodes_for_ended(Strategy.LEAST_CONNECTIONS, [seat("a"), seat("b"), seat("c")], 6) == [*"abcabc"]


def test_round_robin_goes_round() -> None:
    """Each node once per round, whatever their slots."""
    seats = [seat("a", slots=9), seat("b", slots=3), seat("c", slots=9)]
    assert nodes_for(Strategy.ROUND_ROBIN, seats, 6) == [*"abcabc"]


def test_round_robin_skips_a_full_node_and_goes_on() -> None:
    """A node without room loses its turn; nobody else does."""
    desk = desk_of(fleet_of([seat("a"), seat("b"), seat("c")], PoolPolicy("east", Strategy.ROUND_ROBIN, prefetch=0)))
    desk.occupancy.by_node[Lane.TOOLS]["b"] = 2
    for index in range(4):
        desk.backlog.add(waiting(f"c{index}"), 0.0)
    assert [placement.node for _, placement in desk.release_all()] == [*"acac"]


def test_node_that_joins_round_robin_gets_no_burst() -> None:
    """A new node takes its turn, not everything it has missed."""
    seats = [seat("a", slots=100), seat("b", slots=100)]
    desk = desk_of(fleet_of(seats, PoolPolicy("east", Strategy.ROUND_ROBIN)))
    for index in range(60):
        desk.backlog.add(waiting(f"c{index}"), 0.0)
    desk.release_all(limit=50)
    desk.change(fleet_of([*seats, seat("c", slots=100)], PoolPolicy("east", Strategy.ROUND_ROBIN), version=2))
    assert Counter(placement.node for _, placement in desk.release_all(limit=9)) == {"a": 3, "b": 3, "c": 3}


@pytest.mark.parametrize(
    ("weights", "number", "wanted"),
    [
        pytest.param((5, 1, 1), 7, {"a": 5, "b": 1, "c": 1}, id="one heavy"),
        pytest.param((1, 1, 1), 9, {"a": 3, "b": 3, "c": 3}, id="equal is round robin"),
        pytest.param((0.5, 1, 0.5), 8, {"a": 2, "b": 4, "c": 2}, id="fractions"),
    ],
)
def test_weighted_round_robin_keeps_the_weights(
    weights: tuple[float, ...], number: int, wanted: dict[str, int]
) -> None:
    """Over one round every node has exactly its share."""
    seats = [seat(node, slots=50, weight=weight) for node, weight in zip("abc", weights, strict=True)]
    assert Counter(nodes_for(Strategy.WEIGHTED_ROUND_ROBIN, seats, number)) == wanted


def test_weighted_round_robin_is_smooth() -> None:
    """The light nodes are not left for the end of the round, nor the heavy one's calls bunched up."""
    seats = [seat("a", slots=99, weight=5), seat("b", slots=99), seat("c", slots=99)]
    order = "".join(str(node) for node in nodes_for(Strategy.WEIGHTED_ROUND_ROBIN, seats, 28))
    assert "aaaaaa" not in order
    assert all(order[start : start + 7].count("a") in {4, 5, 6} for start in range(21))


@pytest.mark.parametrize(
    ("busy", "wanted"),
    [
        pytest.param({"cpu": 0.9}, "b", id="cpu"),
        pytest.param({"memory": 0.9}, "b", id="memory"),
        pytest.param({}, "a", id="idle: the first"),
    ],
)
def test_resource_avoids_the_strained_node(busy: dict[str, Any], wanted: str) -> None:
    """What nodes report decides."""
    seats = [replace(seat("a", slots=9), **busy), seat("b", slots=9)]
    assert nodes_for(Strategy.RESOURCE, seats, 1) == [wanted]


def test_resource_counts_what_was_placed_since_the_report() -> None:
    """Reports are seconds old: all calls in between must not go to yesterday's idlest node."""
    seats = [seat("a", slots=8, cpu=0.2), seat("b", slots=8, cpu=0.1)]
    assert Counter(nodes_for(Strategy.RESOURCE, seats, 8)) == {"a": 4, "b": 4}


def test_new_load_reports_need_no_new_fleet_version() -> None:
    """Load changes every two seconds per node; what was worked out for the fleet is kept."""
    view = fleet_of([seat("a"), seat("b")], PoolPolicy("east", Strategy.RESOURCE))
    ranked = view.rank("shop")
    busy = view.reloaded({"a": (0.9, 0.1), "gone": (1.0, 1.0)})
    assert (busy.version, busy.seats["a"].cpu, view.seats["a"].cpu) == (view.version, 0.9, 0.0)
    assert busy.rank("shop") is ranked
    desk = desk_of(busy)
    desk.backlog.add(waiting("c"), 0.0)
    assert [placement.node for _, placement in desk.release_all()] == ["b"]


def test_affinity_sends_one_tool_to_one_node_within_its_bound() -> None:
    """Without a project the tool is hashed; the bound makes room move on before one node is full."""
    seats = [seat(node, slots=10) for node in "abcde"]
    first, *rest = nodes_for(Strategy.AFFINITY, seats, 10)
    assert len(set(rest)) > 1
    assert Counter([first, *rest]).most_common(1)[0][1] <= 3
    assert set(nodes_for_ended(Strategy.AFFINITY, seats, 5)) == {first}


@pytest.mark.parametrize("bound", [1.0, 1.25, 2.0])
def test_affinity_never_exceeds_bound_times_the_mean(bound: float) -> None:
    """Bounded load: with 30 projects on 5 nodes nobody holds more than its fair share times the bound."""
    seats = [seat(node, slots=20) for node in "abcde"]
    desk = desk_of(fleet_of(seats, PoolPolicy("east", Strategy.AFFINITY, bound=bound)))
    for index in range(30):
        desk.backlog.add(waiting(f"c{index}", f"p{index}"), 0.0)
    held = Counter(placement.node for _, placement in desk.release_all())
    assert sum(held.values()) == 30
    assert max(held.values()) <= -(-30 * bound // 5)


def test_late_places_on_the_pool_up_to_its_free_slots() -> None:
    """Late binding has no prefetch: exactly the free slots of all open nodes, on the pool's queue."""
    seats = [seat("a", slots=2), seat("b", slots=3), seat("shut", slots=9, is_open=False)]
    desk = desk_of(fleet_of(seats, PoolPolicy("east", Strategy.LATE)))
    desk.occupancy.by_node[Lane.TOOLS]["a"] = 1
    for index in range(9):
        desk.backlog.add(waiting(f"c{index}", f"p{index}"), 0.0)
    released = [placement for _, placement in desk.release_all()]
    assert {(placement.node, placement.queue) for placement in released} == {(None, "mcpfleet.p.east.tools")}
    assert len(released) == 4


def test_late_pool_addresses_calls_that_not_every_node_can_run() -> None:
    """A node must never take from the pool's queue what it has no tool for."""
    seats = [seat("a"), seat("b", tools=frozenset({"other.tool"}))]
    desk = desk_of(fleet_of(seats, PoolPolicy("east", Strategy.LATE)))
    desk.backlog.add(waiting("c"), 0.0)
    ((_, placement),) = desk.release_all()
    assert placement.node == "a"
    assert any("1 of 2 nodes" in reason for reason in placement.reasons)


@pytest.mark.parametrize("strategy", [s for s in Strategy if s is not Strategy.LATE])
def test_free_slots_come_before_prefetch_room(strategy: Strategy) -> None:
    """Nothing waits behind a running call while a slot is free elsewhere."""
    desk = desk_of(fleet_of([seat("a", slots=1), seat("b", slots=4)], PoolPolicy("east", strategy)))
    for index in range(5):
        desk.backlog.add(waiting(f"c{index}", f"p{index}"), 0.0)
    assert Counter(placement.node for _, placement in desk.release_all()) == {"a": 1, "b": 4}


def test_agents_lane_has_no_prefetch() -> None:
    """An agent run waits in the ledger, not for hours behind another one on its node."""
    desk = desk_of(fleet_of([seat("a", agents=1)], PoolPolicy("east", prefetch=2)))
    for index in range(3):
        desk.backlog.add(waiting(f"c{index}", lane=Lane.AGENTS), 0.0)
    assert len(desk.release_all()) == 1


def test_asking_changes_nobodys_turn() -> None:
    """`route` only reads the turn; only a placement moves it on."""
    desk = desk_of(fleet_of([seat("a"), seat("b")], PoolPolicy("east", Strategy.ROUND_ROBIN)))
    assert desk.decide(waiting("c")) == desk.decide(waiting("c"))
    desk.spread.placed(Placement("east", "a", Lane.TOOLS, "q", ("said",)), desk.fleet)
    decision = desk.decide(waiting("c"))
    assert isinstance(decision, Placement)
    assert decision.node == "b"


def test_turns_of_a_node_that_left_are_forgotten() -> None:
    """Nodes come and go under ever new names."""
    spread = Spread()
    for version in range(3):
        node = f"n{version}"
        view = fleet_of([seat(node)], version=version)
        spread.placed(Placement("east", node, Lane.TOOLS, "q", ("said",)), view)
        spread.placed(Placement("east", "unknown", Lane.TOOLS, "q", ("said",)), view)
        assert set(spread.turns("east", Lane.TOOLS)) == {node}


@pytest.mark.parametrize("strategy", [Strategy.ROUND_ROBIN, Strategy.WEIGHTED_ROUND_ROBIN])
def test_node_that_was_full_catches_up_by_one_turn_only(strategy: Strategy) -> None:
    """After an hour without room it gets its share, not an hour's worth."""
    desk = desk_of(fleet_of([seat("a", slots=99), seat("b", slots=99)], PoolPolicy("east", strategy, prefetch=0)))
    desk.occupancy.by_node[Lane.TOOLS]["b"] = 99
    for index in range(60):
        desk.backlog.add(waiting(f"c{index}"), 0.0)
    desk.release_all(limit=40)
    desk.occupancy.by_node[Lane.TOOLS]["b"] = 0
    assert Counter(placement.node for _, placement in desk.release_all(limit=10))["b"] <= 6
