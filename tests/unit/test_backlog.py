"""The fair queue: order, parking, and that nothing is lost or forgotten."""

from __future__ import annotations

from orchestrator.dispatch.affinity import Affinity
from orchestrator.dispatch.testing import TOOL, Desk, desk_of, fleet_of, seat, waiting
from orchestrator.ledger.values import Waiting
from tasks.invocation import Lane
from tasks.placement import Hold, Placement
from tasks.pool import PoolPolicy

PATIENT = PoolPolicy("east", prefetch=0, warm_wait_tools_s=1e6)
"""A node holds what it runs, and a project waits for its node."""


def ids(released: list[tuple[Waiting, Placement]]) -> list[str]:
    """What was released, in order."""
    return [call.id for call, _ in released]


# ------------------------------------------------------------------------------------------ order


def test_higher_priority_first_then_age_within_a_project() -> None:
    """Inside one project, priority beats age and age beats arrival."""
    desk = desk_of(fleet_of([seat("a1", slots=9)]))
    for call_id, priority, at in [("late", 5, 3.0), ("old", 5, 1.0), ("urgent", 9, 4.0), ("low", 0, 0.0)]:
        desk.backlog.add(waiting(call_id, "shop", priority=priority, accepted_at=at), 0.0)
    assert ids(desk.release_all()) == ["urgent", "old", "late", "low"]


def test_priority_holds_across_the_shapes_of_a_project() -> None:
    """A project's urgent call goes first whatever tool it calls."""
    desk = desk_of(fleet_of([seat("a1", slots=9, tools=frozenset({"x.a", "x.b"}))]))
    desk.backlog.add(waiting("b", "shop", tool="x.b", accepted_at=1.0), 0.0)
    desk.backlog.add(waiting("a", "shop", tool="x.a", priority=9, accepted_at=2.0), 0.0)
    desk.backlog.add(waiting("b0", "shop", tool="x.b", accepted_at=0.0), 0.0)
    assert ids(desk.release_all()) == ["a", "b0", "b"]


# ---------------------------------------------------------------------------------------- parking


def test_pass_without_credit_asks_once_and_not_per_call() -> None:
    """With nothing free, 3,000 waiting calls of 300 projects cost one question, and then none."""
    desk = desk_of(fleet_of([seat("a1", slots=1)], PoolPolicy("east", prefetch=0)))
    desk.occupancy.by_node[Lane.TOOLS]["a1"] = 1
    for project in range(300):
        desk.fill(f"p{project}", 10)
    assert desk.release_all() == []
    assert desk.asked == 1
    assert desk.release_all() == []
    assert desk.asked == 1


def test_credit_asks_a_bounded_number_of_times_however_many_wait_for_the_node() -> None:
    """200 projects warm on one full node: one credit there costs a few questions, not 200."""
    seats = [seat("a1", slots=1), seat("a2", slots=1)]
    desk = desk_of(fleet_of(seats, PoolPolicy("east", prefetch=0, warm_wait_tools_s=1e6)))
    hour_s = 3600.0
    for number in range(200):
        desk.affinity.placed(f"p{number}", "a1", now_wall_s=0.0, ttl_s=hour_s, fleet=desk.fleet)
        desk.fill(f"p{number}", 3)
    ((_, placement),) = desk.release_all()
    desk.asked = 0
    for _ in range(50):
        desk.give_back(placement)
        ((_, placement),) = desk.release_all()
    assert desk.asked <= 50 * 3


def test_projects_waiting_for_one_node_take_turns_on_it() -> None:
    """Waiting for the same warm node, nobody is served twice before all were served once."""
    desk = desk_of(
        fleet_of([seat("a1", slots=1), seat("a2", slots=1)], PoolPolicy("east", prefetch=0, warm_wait_tools_s=1e6))
    )
    for number in range(5):
        desk.affinity.placed(f"p{number}", "a1", now_wall_s=0.0, ttl_s=1e6, fleet=desk.fleet)
        desk.fill(f"p{number}", 4)
    served = []
    for _ in range(15):
        ((call, placement),) = desk.release_all()
        served.append(call.project)
        desk.give_back(placement)
    assert all(len(set(served[start : start + 5])) == 5 for start in (0, 5, 10))


def three_projects_waiting_for_a1() -> Desk:
    """One call each of three projects that are warm on a1, which is full; a2 is empty."""
    desk = desk_of(fleet_of([seat("a1", slots=1), seat("a2", slots=1)], PATIENT))
    desk.occupancy.by_node[Lane.TOOLS]["a1"] = 1
    for project in ("p", "q", "r"):
        desk.affinity.placed(project, "a1", now_wall_s=0.0, ttl_s=1e6, fleet=desk.fleet)
        desk.backlog.add(waiting(project, project), 0.0)
    assert desk.release_all() == []
    return desk


def test_node_that_grows_takes_all_that_waited_for_it() -> None:
    """One event may bring much room: each call that uses some of it wakes the next."""
    desk = three_projects_waiting_for_a1()
    desk.change(fleet_of([seat("a1", slots=4), seat("a2", slots=1)], PATIENT, version=2))
    assert ids(desk.release_all()) == ["p", "q", "r"]


def test_cancel_of_the_woken_call_wakes_the_next() -> None:
    """The credit that woke it is still there."""
    desk = three_projects_waiting_for_a1()
    desk.occupancy.by_node[Lane.TOOLS]["a1"] = 0
    desk.backlog.credit("a1", Lane.TOOLS)
    desk.backlog.remove("p")
    assert ids(desk.release_all()) == ["q"]


def test_woken_call_that_waits_for_another_node_now_wakes_the_next() -> None:
    """Its project was bound anew meanwhile: it does not use the credit that woke it."""
    desk = three_projects_waiting_for_a1()
    desk.backlog.credit("a1", Lane.TOOLS)
    woken = desk.backlog.next(0.0)
    assert woken is not None
    assert woken.id == "p"
    desk.backlog.park("p", Hold(("waits",), "a2", until_s=9.0))
    offered = desk.backlog.next(0.0)
    assert offered is not None
    assert offered.id == "q"


def test_calls_waiting_for_a_node_that_closes_go_elsewhere_at_once() -> None:
    """A lost or draining node is not waited for."""
    desk = three_projects_waiting_for_a1()
    desk.change(fleet_of([seat("a1", slots=1, is_open=False), seat("a2", slots=5)], PATIENT, version=2))
    assert ids(desk.release_all()) == ["p", "q", "r"]


def test_a_call_waiting_for_a_node_that_lost_its_tool_goes_elsewhere_at_once() -> None:
    """Behind one that still can wait for it: only that one is woken by the change itself."""
    both = frozenset({"x.a", "x.b"})
    desk = desk_of(fleet_of([seat("a1", slots=1, tools=both), seat("a2", slots=1, tools=both)], PATIENT))
    desk.affinity = Affinity([("p", "a1", 1e9)])
    desk.occupancy.by_node[Lane.TOOLS]["a1"] = 1
    desk.backlog.add(waiting("stays", "p", tool="x.b"), 0.0)
    desk.backlog.add(waiting("goes", "p", tool="x.a", accepted_at=1e-6), 0.0)
    assert desk.release_all() == []
    changed = [seat("a1", slots=1, tools=frozenset({"x.b"})), seat("a2", slots=1, tools=both)]
    desk.change(fleet_of(changed, PATIENT, version=2))
    assert ids(desk.release_all()) == ["goes"]


def test_credit_on_a_node_that_joined_later_wakes_what_waits() -> None:
    """What waited before the node joined can use it as well."""
    desk = desk_of(fleet_of([seat("a1", slots=1)], PATIENT))
    desk.occupancy.by_node[Lane.TOOLS].update({"a1": 1, "a2": 1})
    desk.backlog.add(waiting("c"), 0.0)
    desk.change(fleet_of([seat("a1", slots=1), seat("a2", slots=1)], PATIENT, version=2))
    assert desk.release_all() == []
    desk.give_back(Placement("east", "a2", Lane.TOOLS, "q", ("said",)))
    assert ids(desk.release_all()) == ["c"]


def test_turns_survive_a_change_of_the_fleet() -> None:
    """A project that had its turn does not get it again because a node joined."""
    seats = [seat(f"a{number}", slots=1) for number in range(9)]
    desk = desk_of(fleet_of(seats[:4], PATIENT))
    desk.fill("first", 40)
    assert len(desk.release_all()) == 1
    desk.affinity = Affinity()
    desk.fill("second", 40)
    served = []
    for version in range(4, 9):
        desk.change(fleet_of(seats[: version + 1], PATIENT, version=version))
        served += [call.project for call, _ in desk.release_all(limit=1)]
        desk.affinity = Affinity()
    assert abs(served.count("first") - served.count("second")) <= 1


def test_one_shape_without_room_does_not_hold_up_another() -> None:
    """Long runs without a slot leave short calls of the same project moving."""
    desk = desk_of(fleet_of([seat("a1", slots=4, agents=1)]))
    desk.fill("shop", 3, lane=Lane.AGENTS, tool=TOOL, priority=9)
    desk.backlog.add(waiting("short", "shop", accepted_at=5.0), 0.0)
    assert "short" in ids(desk.release_all())
    assert len(desk.backlog) == 2


def test_held_call_is_offered_again_when_its_wait_is_over() -> None:
    """A hold ends by time alone, and the loop is told when."""
    desk = desk_of(fleet_of([seat("a1"), seat("a2")]))
    desk.backlog.add(waiting("c", "shop"), 0.0)
    desk.backlog.park("c", Hold(("waits",), "a1", until_s=2.0))
    assert desk.backlog.next(1.9) is None
    assert desk.backlog.wait_s(0.5, 0.5) == 1.5
    assert desk.backlog.next(2.0) is not None


def test_refused_call_waits_for_the_fleet_to_change() -> None:
    """A call nobody can run stays, and goes when a node that can joins."""
    desk = desk_of(fleet_of([seat("a1", tools=frozenset())]))
    desk.backlog.add(waiting("c"), 0.0)
    assert desk.release_all() == []
    assert desk.release_all() == []
    assert desk.asked == 1
    desk.change(fleet_of([seat("a1", tools=frozenset()), seat("a2")], version=2))
    assert ids(desk.release_all()) == ["c"]


def test_next_gives_the_same_call_until_something_is_done_with_it() -> None:
    """Asking twice takes nothing out."""
    desk = desk_of(fleet_of([seat("a1")]))
    desk.backlog.add(waiting("c"), 0.0)
    assert desk.backlog.next(0.0) == desk.backlog.next(0.0) == waiting("c")


def test_paused_project_waits_and_resumes_whole() -> None:
    """Pausing a project holds exactly its calls; resuming gives every one of them back."""
    seats = [seat("a1", slots=20)]
    desk = desk_of(fleet_of(seats, paused=[("project", "shop")]))
    desk.fill("shop", 5)
    desk.fill("blog", 2)
    assert [call.project for call, _ in desk.release_all()] == ["blog", "blog"]
    desk.change(fleet_of(seats, version=2))
    assert len(desk.release_all()) == 5


def test_park_of_a_paused_projects_call_parks_nobody_else() -> None:
    """`route` says hold for a paused project; that must not park the shape for all."""
    desk = desk_of(fleet_of([seat("a1")], paused=[("project", "shop")]))
    desk.backlog.add(waiting("c", "shop"), 0.0)
    desk.backlog.add(waiting("d", "blog"), 0.0)
    desk.backlog.park("c", Hold(("project shop is paused",)))
    assert ids(desk.release_all()) == ["d"]


# ------------------------------------------------------------------------------ time and removal


def test_delayed_call_is_not_offered_before_its_time() -> None:
    """`not_before` is on the wall clock; the loop is told when to come back."""
    desk = desk_of(fleet_of([seat("a1")]))
    desk.backlog.add(waiting("c", not_before=5.0), 1.0)
    assert (desk.backlog.delayed, len(desk.backlog)) == (1, 1)
    assert desk.backlog.next(4.0) is None
    assert desk.backlog.wait_s(1.0, 1.0) == 4.0
    assert desk.backlog.due(4.9) == 0
    assert desk.backlog.due(5.0) == 1
    assert desk.backlog.next(5.0) is not None


def test_expired_calls_leave_and_are_named() -> None:
    """A deadline ends the wait of delayed, parked and queued calls alike."""
    desk = desk_of(fleet_of([seat("a1", tools=frozenset())]))
    for call_id, not_before in [("queued", None), ("delayed", 99.0)]:
        desk.backlog.add(waiting(call_id, expires_at=3.0, not_before=not_before), 0.0)
    desk.backlog.add(waiting("later", expires_at=4.0), 0.0)
    desk.release_all()
    assert desk.backlog.expired(2.9) == []
    assert {call.id for call in desk.backlog.expired(3.0)} == {"queued", "delayed"}
    assert len(desk.backlog) == 1


def test_cancelled_call_is_never_offered() -> None:
    """Removal by id works at the head, in the middle, delayed, parked, and twice."""
    desk = desk_of(fleet_of([seat("a1", slots=9)]))
    desk.fill("shop", 5)
    desk.backlog.add(waiting("delayed", not_before=9.0), 0.0)
    for call_id in ["shop---00000", "shop---00002", "delayed"]:
        assert desk.backlog.remove(call_id) is not None
        assert desk.backlog.remove(call_id) is None
    assert ids(desk.release_all()) == ["shop---00001", "shop---00003", "shop---00004"]
    assert len(desk.backlog) == 0


def test_call_added_again_replaces_what_was_there() -> None:
    """A retry of the same Invocation stands once, with its new fence."""
    desk = desk_of(fleet_of([seat("a1")]))
    desk.backlog.add(waiting("c", priority=9), 0.0)
    desk.backlog.add(waiting("c", fence=1, not_before=3.0), 0.0)
    assert len(desk.backlog) == 1
    assert desk.backlog.next(0.0) is None
    desk.backlog.due(3.0)
    assert [call.fence for call, _ in desk.release_all()] == [1]


def test_emptied_backlog_keeps_nothing() -> None:
    """Lines, flows and parking of what is gone are gone too."""
    desk = desk_of(fleet_of([seat("a1", slots=1000)]))
    for project in range(50):
        desk.fill(f"p{project}", 3, requires=frozenset({"git"}) if project % 2 else frozenset())
    desk.release_all()
    desk.fill("last", 2)
    desk.release_all()
    backlog = desk.backlog
    assert not backlog._lines
    assert not backlog._parked
    assert not len(backlog._holds)
    assert not any(arena.flows for arena in backlog._arenas.values())
