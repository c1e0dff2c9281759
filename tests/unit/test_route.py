"""Where a call goes, and why: tables of cases, and properties over any fleet."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.dispatch.route import Decision, route
from orchestrator.dispatch.spread import Spread
from orchestrator.dispatch.testing import TOOL, Counted, desk_of, fleet_of, seat, waiting
from orchestrator.dispatch.view import FleetView, Seat, shape_of
from orchestrator.ledger.values import Waiting
from tasks.invocation import Lane
from tasks.node import NodeState
from tasks.placement import Hold, Placement, Refusal
from tasks.pool import PoolPolicy, Strategy

FULL = 99


def decide(
    call: Waiting,
    fleet: FleetView,
    *,
    held: dict[str, int] | None = None,
    warm: str | None = None,
    waited_s: float = 0.0,
) -> Decision:
    """`route` at 100 s on the monotonic clock; `held` is per node, in the call's lane."""
    occupancy = Counted({(node, call.lane): number for node, number in (held or {}).items()})
    return route(call, fleet, occupancy, warm_node=warm, waited_s=waited_s, spread=Spread(), now_s=100.0)


def placed(decision: Decision) -> Placement:
    """It must be a placement."""
    assert isinstance(decision, Placement), decision
    return decision


def text(decision: Decision) -> str:
    """All its reasons."""
    return "\n".join(decision.reasons)


# --------------------------------------------------------------------------------------- refusals

MIXED = [
    seat("a1", "east", tools=frozenset({TOOL}), capabilities=frozenset({"git", "gpu"})),
    seat("a2", "east", tools=frozenset({TOOL, "time.now"})),
    seat("b1", "west", tools=frozenset({"web.fetch"}), capabilities=frozenset({"web", "gpu"})),
]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"tool": "git.git_lag"}, ["git.git_lag", "did you mean 'git.git_log'"], id="tool with near miss"),
        pytest.param({"requires": frozenset({"gpv"})}, ["capability gpv", "did you mean 'gpu'"], id="capability"),
        pytest.param({"pool": "wast"}, ["pool wast has no node", "did you mean 'west'"], id="pool"),
        pytest.param({"lane": Lane.AGENTS}, ["no node has slots in lane agents"], id="lane"),
        pytest.param({"pool": "west"}, ["node a1 (pool east) lacks membership of pool west"], id="tool in other pool"),
        pytest.param(
            {"tool": "time.now", "requires": frozenset({"gpu"})},
            ["node a1 (pool east) lacks tool time.now", "node a2 (pool east) lacks capability gpu"],
            id="each exists, not together",
        ),
    ],
)
def test_refusal_names_what_is_missing_and_who_lacks_least(changes: dict[str, Any], words: list[str]) -> None:
    """What nobody could ever run is refused, with the lack and the nearest nodes."""
    decision = decide(waiting("c", **changes), fleet_of(MIXED))
    assert isinstance(decision, Refusal)
    for word in words:
        assert word in text(decision)


def test_empty_fleet_says_so() -> None:
    """The first thing a newcomer meets."""
    assert decide(waiting("c"), fleet_of([])) == Refusal(("no node has joined the fleet",))


def test_closed_node_that_could_run_it_is_a_hold_and_not_a_refusal() -> None:
    """It may come back: nobody is told that the call can never run."""
    seats = [seat("a1", is_open=False, state=NodeState.LOST), seat("b1", tools=frozenset())]
    decision = decide(waiting("c"), fleet_of(seats))
    assert isinstance(decision, Hold)
    assert (decision.node, decision.until_s) == (None, None)
    assert "node a1 is lost" in text(decision)


# ----------------------------------------------------------------------------------------- filter


def test_only_nodes_with_the_tool_and_every_capability_are_candidates() -> None:
    """Tool and `requires` decide together."""
    decision = placed(decide(waiting("c", requires=frozenset({"git", "gpu"})), fleet_of(MIXED)))
    assert (decision.pool, decision.node, decision.queue) == ("east", "a1", "mcpfleet.n.a1.tools")
    assert "1 of 3 nodes offer git.git_log and git and gpu" in text(decision)


@pytest.mark.parametrize(
    ("paused", "wanted"),
    [
        pytest.param([("pool", "east")], "b1", id="pool"),
        pytest.param([("queue", "mcpfleet.n.a1.tools")], "b1", id="queue"),
        pytest.param([("queue", "mcpfleet.n.a1.agents")], "a1", id="queue of the other lane"),
        pytest.param([("project", "other")], "a1", id="another project"),
    ],
)
def test_what_is_paused_is_no_candidate(paused: list[tuple[str, str]], wanted: str) -> None:
    """Pausing a pool or queue sends calls elsewhere."""
    seats = [seat("a1", "east", slots=9), seat("b1", "west", slots=2)]
    assert placed(decide(waiting("c"), fleet_of(seats, paused=paused))).node == wanted


def test_pool_paused_by_its_policy_is_no_candidate() -> None:
    """The operator's file and the operator's command mean the same."""
    decision = decide(waiting("c"), fleet_of([seat("a1")], PoolPolicy("east", is_paused=True)))
    assert isinstance(decision, Hold)
    assert "pool east, which is paused" in text(decision)


def test_paused_project_holds() -> None:
    """Its calls wait, and `why` says for what."""
    decision = decide(waiting("c", "shop"), fleet_of([seat("a1")], paused=[("project", "shop")]))
    assert decision == Hold(("project shop is paused",))


# ------------------------------------------------------------------------------------------- pool


def test_named_pool_is_taken() -> None:
    """Even where another one has more room."""
    seats = [seat("a1", "east", slots=9), seat("b1", "west", slots=1)]
    assert placed(decide(waiting("c", pool="west"), fleet_of(seats))).pool == "west"


def test_pool_with_most_free_slots_is_taken() -> None:
    """Free slots, not slots."""
    seats = [seat("a1", "east", slots=9), seat("b1", "west", slots=4)]
    decision = placed(decide(waiting("c"), fleet_of(seats), held={"a1": 6}))
    assert decision.pool == "west"
    assert "pool: west has 4 free slots, the most of 2 pools" in decision.reasons


def test_pools_with_equal_room_are_taken_by_name() -> None:
    """A stable tie-break."""
    seats = [seat("b1", "west"), seat("a1", "east")]
    assert placed(decide(waiting("c"), fleet_of(seats))).pool == "east"


# --------------------------------------------------------------------------------------- affinity

TWO = [seat("a1", slots=2), seat("a2", slots=2)]


def test_warm_node_is_used_while_it_has_credit() -> None:
    """Up to its slots and the prefetch, though the other node is empty."""
    decision = placed(decide(waiting("c", "shop"), fleet_of(TWO), held={"a1": 3}, warm="a1"))
    assert decision.node == "a1"
    assert decision.reasons == ("affinity: node a1 holds project shop (3 of 2 slots used)",)


@pytest.mark.parametrize(
    ("lane", "waited_s", "left_s"),
    [(Lane.TOOLS, 0.0, 2.0), (Lane.TOOLS, 1.5, 0.5), (Lane.AGENTS, 1.5, 58.5)],
)
def test_full_warm_node_is_waited_for_a_bounded_time(lane: Lane, waited_s: float, left_s: float) -> None:
    """2 s for tools, 60 s for agents, counted from when the call could first go."""
    seats = [seat("a1", agents=2), seat("a2", agents=2)]
    decision = decide(waiting("c", "shop", lane=lane), fleet_of(seats), held={"a1": FULL}, warm="a1", waited_s=waited_s)
    assert isinstance(decision, Hold)
    assert decision.node == "a1"
    assert decision.until_s == pytest.approx(100.0 + left_s)


def test_call_spills_when_the_wait_is_over() -> None:
    """And says why it is not where its files are."""
    decision = placed(decide(waiting("c", "shop"), fleet_of(TWO), held={"a1": 4}, warm="a1", waited_s=2.0))
    assert decision.node == "a2"
    assert "the call waited 2.0 s of 2 s for it: spilled" in text(decision)


def test_spilled_call_with_no_room_anywhere_waits_for_any_node() -> None:
    """Past its wait it no longer insists."""
    decision = decide(waiting("c", "shop"), fleet_of(TWO), held={"a1": 4, "a2": 4}, warm="a1", waited_s=9.0)
    assert isinstance(decision, Hold)
    assert (decision.node, decision.until_s) == (None, None)
    assert "8 calls held for 4 slots" in text(decision)


@pytest.mark.parametrize(
    ("warm", "words"),
    [
        pytest.param(seat("a1", is_open=False, state=NodeState.LOST), "is lost: no longer warm", id="lost"),
        pytest.param(seat("a1", is_open=False, state=NodeState.DRAINING), "is draining: no longer warm", id="draining"),
        pytest.param(seat("a1", is_open=False), "is not open: no longer warm", id="lease lapsed"),
        pytest.param(seat("a1", tools=frozenset()), "but lacks tool git.git_log", id="lost its tool"),
        pytest.param(None, "is no longer in the fleet", id="left"),
    ],
)
def test_warm_node_that_cannot_take_it_is_not_waited_for(warm: Seat | None, words: str) -> None:
    """The project goes elsewhere at once, and says what became of its node."""
    seats = [seat("a2"), *([warm] if warm else [])]
    decision = placed(decide(waiting("c", "shop"), fleet_of(seats), warm="a1"))
    assert decision.node == "a2"
    assert words in text(decision)


def test_warm_node_behind_a_paused_queue_is_not_waited_for() -> None:
    """Pausing a node's queue is an operator's wish, not a full node."""
    decision = placed(decide(waiting("c", "shop"), fleet_of(TWO, paused=[("queue", "mcpfleet.n.a1.tools")]), warm="a1"))
    assert decision.node == "a2"
    assert "behind queue mcpfleet.n.a1.tools, which is paused" in text(decision)


def test_late_pool_ignores_affinity() -> None:
    """Any free node takes it; the reasons say that the project had a node."""
    decision = placed(decide(waiting("c", "shop"), fleet_of(TWO, PoolPolicy("east", Strategy.LATE)), warm="a1"))
    assert (decision.node, decision.queue) == (None, "mcpfleet.p.east.tools")
    assert "binds late" in text(decision)


def test_paused_late_queue_takes_nothing() -> None:
    """The pool's queue is a queue like any other."""
    policy = PoolPolicy("east", Strategy.LATE)
    decision = decide(waiting("c"), fleet_of(TWO, policy, paused=[("queue", "mcpfleet.p.east.tools")]))
    assert isinstance(decision, Hold)
    assert "behind queue mcpfleet.p.east.tools, which is paused" in text(decision)


# ------------------------------------------------------------------------------------- properties

TOOLS = ("x.a", "x.b")
LABELS = ("git", "gpu")


@st.composite
def seats_of(draw: st.DrawFn, node: str) -> Seat:
    """A node with anything."""
    return Seat(
        node=node,
        pool=draw(st.sampled_from(["east", "west"])),
        capabilities=frozenset(draw(st.sets(st.sampled_from(LABELS)))),
        tools=frozenset(draw(st.sets(st.sampled_from(TOOLS)))),
        slots={Lane.TOOLS: draw(st.integers(0, 3)), Lane.AGENTS: draw(st.integers(0, 2))},
        weight=draw(st.sampled_from([0.5, 1.0, 3.0])),
        cpu=draw(st.floats(0, 1)),
        memory=draw(st.floats(0, 1)),
        is_open=draw(st.booleans()),
    )


@st.composite
def fleets(draw: st.DrawFn) -> FleetView:
    """Up to five nodes in two pools of any policy, some of it paused."""
    seats = [draw(seats_of(f"n{number}")) for number in range(draw(st.integers(0, 5)))]
    policies = [
        PoolPolicy(name, draw(st.sampled_from(list(Strategy))), prefetch=draw(st.integers(0, 2)))
        for name in ("east", "west")
    ]
    paused = draw(st.sets(st.sampled_from([("pool", "east"), ("queue", "mcpfleet.n.n0.tools"), ("project", "p")])))
    return fleet_of(seats, *policies, paused=paused)


calls = st.builds(
    waiting,
    st.just("c"),
    st.sampled_from([None, "p", "q"]),
    tool=st.sampled_from(TOOLS),
    lane=st.sampled_from(list(Lane)),
    requires=st.frozensets(st.sampled_from(LABELS), max_size=2),
    pool=st.sampled_from([None, "east", "west"]),
)


@settings(max_examples=150)
@given(calls, fleets(), st.data())
def test_any_decision_keeps_every_promise(call: Waiting, fleet: FleetView, data: st.DataObject) -> None:
    """Never beyond credit, never where it cannot run or is closed or paused, always with reasons, always the same."""
    lane = call.lane
    occupancy = Counted({(node, lane): data.draw(st.integers(0, 4)) for node in fleet.seats})
    occupancy.by_pool["west", lane] = data.draw(st.integers(0, 2))
    warm = data.draw(st.sampled_from([None, "gone", *fleet.seats])) if call.project else None
    waited_s = data.draw(st.sampled_from([0.0, 5.0, 100.0]))

    def ask() -> Decision:
        return route(call, fleet, occupancy, warm_node=warm, waited_s=waited_s, spread=Spread(), now_s=7.0)

    decision = ask()
    assert decision == ask()
    assert decision.reasons
    assert all(decision.reasons)
    if isinstance(decision, Placement):
        assert not fleet.is_project_paused(call.project)
        assert not fleet.is_pool_paused(decision.pool)
        assert not fleet.is_queue_paused(decision.queue)
        assert_within_credit(call, decision, fleet, occupancy)
    elif isinstance(decision, Hold) and decision.node is not None:
        assert decision.node == warm
        assert decision.until_s is not None
        assert decision.until_s > 7.0
    elif isinstance(decision, Refusal):
        assert all(seat.lacks(shape_of(call, {})) for seat in fleet.seats.values())


def assert_within_credit(call: Waiting, placement: Placement, fleet: FleetView, occupancy: Counted) -> None:
    """The seats that may take it can all run it, are open, and together have room for one more."""
    policy, lane = fleet.policy(placement.pool), call.lane
    mates = [s for s in fleet.seats.values() if s.pool == placement.pool and s.is_open and s.slots[lane] > 0]
    if placement.node is None:
        assert policy.strategy is Strategy.LATE
        mates = [s for s in mates if not fleet.is_queue_paused(f"mcpfleet.n.{s.node}.{lane}")]
        held = sum(occupancy.held(s.node, lane) for s in mates) + occupancy.held_in_pool(placement.pool, lane)
        assert held < sum(s.slots[lane] for s in mates)
        takers = mates
    else:
        takers = [fleet.seats[placement.node]]
        ahead = policy.prefetch if lane is Lane.TOOLS else 0
        assert occupancy.held(placement.node, lane) < takers[0].slots[lane] + ahead
    for taker in takers:
        assert taker.is_open
        assert call.tool in taker.tools
        assert call.requires <= taker.capabilities
        assert call.pool in {None, taker.pool}


@settings(max_examples=50)
@given(fleets(), st.lists(calls, max_size=30))
def test_many_calls_never_exceed_credit(fleet: FleetView, wanted: list[Waiting]) -> None:
    """Placed one after the other, each counted at once, no node ends up over its limit."""
    desk = desk_of(fleet)
    for number, call in enumerate(wanted):
        desk.backlog.add(replace(call, id=f"c{number}"), 0.0)
    desk.release_all()
    for node, lane in product(fleet.seats, Lane):
        held = desk.occupancy.held(node, lane)
        node_seat = fleet.seats[node]
        ahead = fleet.policy(node_seat.pool).prefetch if lane is Lane.TOOLS else 0
        assert held <= node_seat.slots[lane] + ahead
    assert len(desk.backlog) + desk.occupancy.total() == len(wanted)
