"""Projects stick to nodes: bindings, homes, and how few of them a new node moves."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.dispatch.affinity import Affinity
from orchestrator.dispatch.rendezvous import rank
from orchestrator.dispatch.testing import Desk, desk_of, fleet_of, seat, waiting
from orchestrator.dispatch.view import FleetView
from tasks.invocation import Lane
from tasks.pool import PoolPolicy, Strategy

TTL_S = 300.0
OPEN = fleet_of([seat("a1"), seat("a2"), seat("a3")])
CLOSED_A1 = fleet_of([seat("a1", is_open=False), seat("a2"), seat("a3")], version=2)


def bind(affinity: Affinity, project: str, node: str, at: float, fleet: FleetView = OPEN) -> None:
    """One call of the project is placed on the node."""
    affinity.placed(project, node, now_wall_s=at, ttl_s=TTL_S, fleet=fleet)


# ---------------------------------------------------------------------------------------- bindings


def test_binding_slides_with_every_call_and_then_ends() -> None:
    """Five minutes after the last call, not after the first."""
    affinity = Affinity()
    bind(affinity, "shop", "a1", at=0.0)
    bind(affinity, "shop", "a1", at=200.0)
    assert affinity.node_of("shop", 499.9) == "a1"
    assert affinity.node_of("shop", 500.0) is None
    assert affinity.node_of("blog", 0.0) is None
    assert affinity.node_of(None, 0.0) is None


def test_spill_leaves_the_binding_where_the_files_are() -> None:
    """A call that went elsewhere because the warm node was full does not move the project."""
    affinity = Affinity()
    bind(affinity, "shop", "a1", at=0.0)
    bind(affinity, "shop", "a2", at=10.0)
    assert affinity.node_of("shop", 20.0) == "a1"


def test_spill_does_not_keep_a_binding_alive() -> None:
    """A node that never has room for its project loses it after the time to live."""
    affinity = Affinity()
    bind(affinity, "shop", "a1", at=0.0)
    bind(affinity, "shop", "a2", at=299.0)
    bind(affinity, "shop", "a2", at=301.0)
    assert affinity.node_of("shop", 302.0) == "a2"


def test_project_moves_when_its_node_is_no_longer_open() -> None:
    """Lost, cordoned and draining nodes give their projects up at the next placement."""
    affinity = Affinity()
    bind(affinity, "shop", "a1", at=0.0)
    bind(affinity, "shop", "a2", at=1.0, fleet=CLOSED_A1)
    assert affinity.node_of("shop", 2.0) == "a2"


def test_bindings_survive_a_restart() -> None:
    """What was saved is loaded, as it was."""
    before = Affinity()
    bind(before, "shop", "a1", at=0.0)
    bind(before, "blog", "a2", at=0.0)
    after = Affinity(before.dirty())
    assert [after.node_of(project, 299.0) for project in ("shop", "blog")] == ["a1", "a2"]
    assert after.dirty() == []
    assert after.node_of("shop", 300.0) is None


def test_busy_project_is_not_saved_with_every_call() -> None:
    """A thousand calls in five minutes are about ten writes, and a restart forgets at most 10 % early."""
    affinity = Affinity()
    writes = 0
    for call in range(1000):
        bind(affinity, "shop", "a1", at=call * 0.3)
        writes += len(affinity.dirty())
    assert writes <= 11


def test_refused_save_is_tried_again_as_it_then_stands() -> None:
    """A ledger that is down loses no binding."""
    affinity = Affinity()
    bind(affinity, "shop", "a1", at=0.0)
    rows = affinity.dirty()
    assert rows == [("shop", "a1", TTL_S)]
    assert affinity.dirty() == []
    affinity.unsaved(rows)
    assert affinity.dirty() == rows


def test_ended_bindings_are_swept() -> None:
    """Memory follows the projects in use."""
    affinity = Affinity([("old", "a1", 5.0), ("new", "a1", 50.0)])
    assert affinity.sweep(10.0) == 1
    assert len(affinity) == 1
    assert affinity.projects_of("a1", 10.0) == ["new"]


# ------------------------------------------------------------------------------ rendezvous hashing

PROJECTS = [f"project-{number}" for number in range(10_000)]


def names(nodes: int) -> dict[str, float]:
    """So many equal nodes."""
    return {f"n{number:03}": 1.0 for number in range(nodes)}


@pytest.fixture(scope="module")
def ranked_over_101() -> dict[str, tuple[str, ...]]:
    """The homes of 10,000 projects, computed once: a million hashes."""
    return {project: rank(project, names(101)) for project in PROJECTS}


def first_without(ranked: tuple[str, ...], newest: str) -> str:
    """The home before that node joined."""
    return ranked[1] if ranked[0] == newest else ranked[0]


def test_ranking_without_a_node_is_the_ranking_before_it_joined(ranked_over_101: dict[str, tuple[str, ...]]) -> None:
    """So one computation tells both states: checked directly for every fiftieth project."""
    for project in PROJECTS[::50]:
        assert rank(project, names(100)) == tuple(node for node in ranked_over_101[project] if node != "n100")


def test_one_node_added_to_100_moves_at_most_2_percent_of_projects(
    ranked_over_101: dict[str, tuple[str, ...]],
) -> None:
    """A hundredth is what a fair new node must take; nothing else moves."""
    moved = [project for project, ranked in ranked_over_101.items() if first_without(ranked, "n100") != ranked[0]]
    assert 0.005 <= len(moved) / len(PROJECTS) <= 0.02


def test_homes_are_spread_evenly(ranked_over_101: dict[str, tuple[str, ...]]) -> None:
    """99 expected per node; six standard deviations either way."""
    counts = Counter(ranked[0] for ranked in ranked_over_101.values())
    assert len(counts) == 101
    assert 40 <= min(counts.values()) <= max(counts.values()) <= 160


def test_weight_is_the_share_of_homes() -> None:
    """Weight 3 among 1, 1 and 3 is home to three fifths."""
    weights = {"a": 1.0, "b": 1.0, "c": 3.0}
    counts = Counter(rank(project, weights)[0] for project in PROJECTS)
    assert counts["c"] / len(PROJECTS) == pytest.approx(0.6, abs=0.03)


def test_ranking_is_the_same_in_every_process() -> None:
    """Restarts and replicas agree: fixed values, not Python's salted hash."""
    assert rank("shop", {"a4": 1.0, "a1": 1.0, "a3": 1.0, "a2": 1.0}) == ("a2", "a3", "a1", "a4")


@settings(max_examples=50)
@given(
    st.sampled_from(PROJECTS),
    st.dictionaries(st.sampled_from([f"n{number}" for number in range(20)]), st.floats(0.1, 10.0), min_size=1),
    st.data(),
)
def test_leaving_node_changes_nothing_in_the_order_of_the_others(
    key: str, weights: dict[str, float], data: st.DataObject
) -> None:
    """Only the keys of the node that left find a new home, and each its own next one."""
    gone = data.draw(st.sampled_from(sorted(weights)))
    rest = {node: weight for node, weight in weights.items() if node != gone}
    assert rank(key, rest) == tuple(node for node in rank(key, weights) if node != gone)


# ------------------------------------------------------------------------------- through dispatch


def place_each(desk: Desk, projects: int) -> dict[str, str | None]:
    """One short call per project, one after the other: nothing is ever full."""
    homes = {}
    for number in range(projects):
        project = f"p{number}"
        desk.backlog.add(waiting(f"{project}-{desk.now_s}", project, accepted_at=desk.now_s), desk.now_s)
        ((_, placement),) = desk.release_all()
        desk.give_back(placement)
        homes[project] = placement.node
    return homes


@pytest.mark.parametrize("strategy", [Strategy.LEAST_CONNECTIONS, Strategy.AFFINITY])
@pytest.mark.parametrize("pools", [1, 2])
def test_new_node_moves_no_warm_project_and_2_percent_of_cold_ones(strategy: Strategy, pools: int) -> None:
    """The promise, over what is really placed, with one pool and with the same tools in two."""
    policies = [PoolPolicy(f"p{number}", strategy) for number in range(pools)]
    seats = [seat(f"n{number:03}", policies[number % pools].name) for number in range(101)]
    desk = desk_of(fleet_of(seats[:100], *policies))
    first = place_each(desk, 300)
    desk.change(fleet_of(seats, *policies, version=2))
    assert place_each(desk, 300) == first
    desk.now_s += TTL_S + 1
    cold = place_each(desk, 300)
    moved = [project for project, node in first.items() if cold[project] != node]
    assert len(moved) / len(first) <= 0.02


def test_load_does_not_move_a_cold_project_to_another_pool() -> None:
    """With the same tool in two pools, the home decides the pool, not who has more room at the moment."""
    seats = [seat(f"n{number}", "east" if number < 4 else "west", slots=8) for number in range(6)]

    def homes(held: int) -> dict[str, str | None]:
        desk = desk_of(fleet_of(seats))
        desk.occupancy.by_node[Lane.TOOLS].update({f"n{number}": held for number in range(4)})
        return place_each(desk, 30)

    idle = homes(0)
    assert {"n4", "n5"} & set(idle.values())
    assert {"n0", "n1", "n2", "n3"} & set(idle.values())
    assert homes(6) == idle


def test_cold_projects_are_balanced_while_they_run() -> None:
    """Hashing alone would put 6 of 40 projects on one of 10 nodes; the bound moves them on."""
    seats = [seat(f"n{number}", slots=8) for number in range(10)]
    desk = desk_of(fleet_of(seats))
    for number in range(40):
        desk.backlog.add(waiting(f"c{number}", f"p{number}"), 0.0)
    held = Counter(placement.node for _, placement in desk.release_all())
    assert sum(held.values()) == 40
    assert max(held.values()) <= 5


def test_ten_calls_of_one_project_stay_together() -> None:
    """They wait for their warm node rather than being scattered, while its queue moves."""
    desk = desk_of(fleet_of([seat("a1"), seat("a2"), seat("a3")]))
    for number in range(10):
        desk.backlog.add(waiting(f"c{number}", "shop"), 0.0)
    nodes = set()
    while len(desk.backlog) or desk.occupancy.total():
        for _, placement in desk.release_all():
            nodes.add(placement.node)
            desk.give_back(placement)
    assert len(nodes) == 1


def test_lanes_share_the_binding() -> None:
    """The files are on the node, whichever lane works on them."""
    desk = desk_of(fleet_of([seat(f"a{n}", agents=2) for n in range(5)]))
    desk.backlog.add(waiting("short", "shop"), 0.0)
    ((_, first),) = desk.release_all()
    desk.backlog.add(waiting("long", "shop", lane=Lane.AGENTS), 0.0)
    ((_, second),) = desk.release_all()
    assert first.node == second.node
