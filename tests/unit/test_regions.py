"""A project's calls stay where its operator said: the choice of a node, and the words about it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from orchestrator.dispatch.route import Decision, route
from orchestrator.dispatch.spread import Spread
from orchestrator.dispatch.testing import TOOL, Counted, seat, waiting
from orchestrator.dispatch.view import FleetView, Seat, shape_of
from tasks.invocation import Lane
from tasks.placement import Hold, Placement, Refusal
from tasks.pool import PoolPolicy, Strategy

REGIONS: Mapping[str, tuple[str, ...]] = {"shop": ("eu-*", "fsn1")}


def _view(*seats: Seat, policy: PoolPolicy | None = None, growth: tuple[Seat, ...] = ()) -> FleetView:
    pools = {"east": policy} if policy else {}
    return FleetView(1, {one.node: one for one in seats}, pools, regions=REGIONS, growth=growth)


def _route(
    fleet: FleetView, project: str | None = "shop", *, warm: str | None = None, busy: Counted | None = None
) -> Decision:
    call = waiting("c", project)
    return route(call, fleet, busy or Counted(), warm_node=warm, waited_s=0.0, spread=Spread(), now_s=0.0)


@pytest.mark.parametrize(
    ("location", "is_allowed"),
    [("eu-1", True), ("eu-", True), ("fsn1", True), ("fsn10", False), ("us-1", False), ("EU-1", False), ("", False)],
)
def test_locations_match_as_file_names_do(location: str, is_allowed: bool) -> None:
    """Upper and lower case differ; who names no location is nowhere."""
    decision = _route(_view(seat("n", location=location)))
    assert isinstance(decision, Placement) == is_allowed


def test_a_full_node_inside_is_waited_for() -> None:
    """However much room there is elsewhere."""
    fleet = _view(seat("eu", slots=1, location="eu-1"), seat("us", slots=9, location="us-1"))
    busy = Counted({("eu", Lane.TOOLS): 9})
    assert isinstance(_route(fleet, busy=busy), Hold)
    for free in ("else", None):
        decision = _route(fleet, free, busy=busy)
        assert isinstance(decision, Placement)
        assert decision.node == "us"


def test_it_says_where_it_may_not_go() -> None:
    """Project, patterns, and the nodes that could have run it."""
    decision = _route(_view(seat("n3", location="us-1"), seat("n4")))
    assert isinstance(decision, Refusal)
    assert decision.reasons == (
        "project shop may not leave eu-* or fsn1; node n3 is in us-1",
        "project shop may not leave eu-* or fsn1; node n4 names no location",
    )


def test_many_nodes_outside_are_counted() -> None:
    """Three are named."""
    decision = _route(_view(*(seat(f"n{index}", location="us-1") for index in range(7))))
    assert decision.reasons[-1] == "and 4 more are elsewhere"


def test_the_warm_node_outside_is_left() -> None:
    """And the reasons say why."""
    decision = _route(_view(seat("eu", location="eu-1"), seat("us", location="us-1")), warm="us")
    assert isinstance(decision, Placement)
    assert decision.node == "eu"
    assert "affinity: node us holds project shop, but lacks a location in eu-* or fsn1" in decision.reasons


def test_a_late_queue_never_carries_what_is_bound() -> None:
    """A node that joins elsewhere tomorrow may take what waits in the pool's queue today."""
    fleet = _view(seat("a", location="eu-1"), seat("b", location="eu-2"), policy=PoolPolicy("east", Strategy.LATE))
    bound, free = _route(fleet), _route(fleet, None)
    assert isinstance(bound, Placement)
    assert isinstance(free, Placement)
    assert (bound.node is None, free.node is None) == (False, True)


def test_a_machine_is_asked_for_only_where_one_may_stand() -> None:
    """A ladder without a rung in the region is no promise."""
    here, there = seat("new", "grows", location="eu-9"), seat("new", "grows", location="us-9")
    assert _route(_view(growth=(here,))).reasons == ("no node of pool grows is up; the autoscaler is asked for one",)
    assert _route(_view(growth=(there,))).reasons == ("no node has joined the fleet",)


def test_projects_without_regions_have_the_shape_they_had() -> None:
    """Nothing is split that could wait together."""
    free = [shape_of(waiting("c", project), REGIONS) for project in (None, "else")]
    assert free[0] == free[1] == (Lane.TOOLS, TOOL, frozenset(), None, (), None)
    assert shape_of(waiting("c", "shop"), REGIONS).regions == ("eu-*", "fsn1")
