"""An agent's call goes where its project's files are, if a slot is free there, and `why` says so."""

from __future__ import annotations

import pytest

from orchestrator.dispatch.route import route
from orchestrator.dispatch.spread import Spread
from orchestrator.dispatch.testing import TOOL, Counted, fleet_of, seat, waiting
from orchestrator.dispatch.view import FleetView, Seat
from orchestrator.ledger.values import Waiting
from tasks.invocation import Lane
from tasks.placement import Placement
from tasks.pool import PoolPolicy, Strategy

SERVER = TOOL.partition(".")[0]
PROJECTS = [f"shop-{number}" for number in range(20)]
"""Enough that without the mirror some of them have their home elsewhere."""


def _near(node: str, *, slots: int = 1, server: str = SERVER, pool: str = "east") -> Seat:
    return seat(node, pool, agents=slots, mirrors={server: tuple(PROJECTS)})


def _run(project: str | None, lane: Lane = Lane.AGENTS) -> Waiting:
    return waiting("c", project, lane=lane)


def _placed(call: Waiting, fleet: FleetView, held: dict[str, int] | None = None, warm: str | None = None) -> Placement:
    occupancy = Counted({(node, call.lane): number for node, number in (held or {}).items()})
    decision = route(call, fleet, occupancy, warm_node=warm, waited_s=0.0, spread=Spread(), now_s=100.0)
    assert isinstance(decision, Placement), decision
    return decision


@pytest.mark.parametrize("project", PROJECTS)
def test_a_run_goes_to_the_mirror_wherever_its_home_is(project: str) -> None:
    """Also where another pool has more room."""
    fleet = fleet_of([seat("a1", agents=1), _near("a2"), seat("b1", "west", agents=9)])
    placement = _placed(_run(project), fleet)
    assert placement.node == "a2"
    assert f"mirror: 1 of 3 nodes with room have project {project}'s files (score 1, the others 0)" in placement.reasons


def test_a_run_does_not_wait_for_the_mirror() -> None:
    """A clone takes a second or a minute; a full node may take an hour."""
    placement = _placed(_run("shop-1"), fleet_of([seat("a1", agents=1), _near("a2")]), held={"a2": 1})
    assert placement.node == "a1"
    assert not any("mirror" in reason for reason in placement.reasons)


def test_the_node_it_is_bound_to_comes_first() -> None:
    """It ran there last: caches are there that nobody counts."""
    assert _placed(_run("shop-1"), fleet_of([seat("a1", agents=1), _near("a2")]), warm="a1").node == "a1"


@pytest.mark.parametrize(
    ("call", "server"),
    [(_run("shop-1", Lane.TOOLS), SERVER), (_run(None), SERVER), (_run("shop-1"), "other")],
    ids=["a tool's call", "no project", "another agent's mirror"],
)
def test_other_calls_are_not_drawn_there(call: Waiting, server: str) -> None:
    """What has no use for the files is spread as ever."""
    fleet = fleet_of([seat("a1", agents=1), _near("a2", server=server)])
    assert not any("mirror" in reason for reason in _placed(call, fleet).reasons)


def test_a_late_pool_is_left_to_its_queue() -> None:
    """Nobody can say who takes from it."""
    fleet = fleet_of([_near("a1")], PoolPolicy("east", strategy=Strategy.LATE))
    assert _placed(_run("shop-1"), fleet).node is None
